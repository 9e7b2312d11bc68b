"""Attempts at a reply, and the one that is audible.

Contract: what an attempt puts out waits here until it may leave. What left is kept until it was
heard, so that a reply that was cut off by mistake goes on where its playback stood. Pure.
"""

from collections import deque
from dataclasses import dataclass, field

from parley_gateway.turns.effects import Status
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.playback import Playback
from parley_gateway.turns.problem import Problem


@dataclass(frozen=True, slots=True)
class Output:
    """Something that an attempt put out.

    Attributes:
        what: Opaque.
        seconds: Audio in it.
        skip: Of these, seconds at its start that were heard already.
    """

    what: object
    seconds: float
    skip: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt came to its end by itself."""

    status: Status
    problem: Problem | None = None


@dataclass(slots=True)
class Attempt:
    """The making of a reply.

    Attributes:
        key: Names it.
        began_at: When.
        waiting: Put out, and not left yet.
        ending: Set once nothing more comes.
        first_audio_at: When its first sound came.
    """

    key: ReplyKey
    began_at: float
    waiting: deque[Output] = field(default_factory=deque)
    ending: Ending | None = None
    first_audio_at: float | None = None

    @property
    def backlog(self) -> float:
        """Seconds of audio that wait."""
        return sum(each.seconds for each in self.waiting)

    def put(self, what: object, seconds: float, now: float) -> None:
        """Takes an output."""
        if seconds > 0 and self.first_audio_at is None:
            self.first_audio_at = now
        self.waiting.append(Output(what, seconds))

    def saved(self, now: float) -> float:
        """Seconds by which the first sound comes earlier than if it were begun now."""
        return min(now, self.first_audio_at or now) - self.began_at


@dataclass(slots=True)
class AudibleReply:
    """The attempt whose output leaves for the client, under a key of the client's.

    A reply that goes on after a false alarm has the attempt of before and a new key.

    Attributes:
        key: What the client knows it by.
        attempt: Makes it.
        held: Nothing leaves right now.
        completed: Everything has left, and its end was told.
    """

    key: ReplyKey
    attempt: Attempt
    held: bool = False
    completed: bool = False
    playback: Playback = field(default_factory=Playback)
    _left: deque[tuple[float, Output]] = field(default_factory=deque)

    def leave(self, output: Output, now: float) -> None:
        """Takes note that an output leaves now."""
        if output.seconds <= 0:
            return
        heard = self.playback.heard(now)
        while self._left and self._left[0][0] + _length(self._left[0][1]) <= heard:
            self._left.popleft()
        self._left.append((self.playback.sent, output))
        self.playback.send(_length(output), now)

    def unheard(self, heard: float) -> list[Output]:
        """What left but was not heard, given that `heard` seconds were."""
        rest = []
        for begin, output in self._left:
            skip = max(0.0, heard - begin)
            if skip < _length(output):
                rest.append(Output(output.what, output.seconds, output.skip + skip))
        return rest


@dataclass(slots=True)
class CutOff:
    """A reply that speech cut off, while it is not sure that the speech was meant.

    Attributes:
        reply: It is still being made.
        heard: Seconds of it that were heard.
    """

    reply: AudibleReply
    heard: float


@dataclass(frozen=True, slots=True)
class Over:
    """A reply that is over, of which the client may still tell that less was heard.

    Attributes:
        key: What the client knows it by.
        status: How it ended, if it was not heard to its end.
        heard: Seconds of it that were heard, as far as is known.
    """

    key: ReplyKey
    status: Status
    heard: float


def _length(output: Output) -> float:
    return output.seconds - output.skip
