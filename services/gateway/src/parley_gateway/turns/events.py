"""What the turn controller is told.

Contract: frozen values only. Offsets are seconds on a media clock: of the user's audio for speech,
of the response for playback. The controller's `now` is told apart from them, with each event.
"""

from dataclasses import dataclass
from typing import Any

from parley_gateway.turns.problem import Problem


@dataclass(frozen=True, slots=True)
class ReplyKey:
    """Names one attempt at a reply. Everything produced for it carries this key.

    Attributes:
        session: Name of the session.
        turn_id: Id of the turn.
        revision: Attempt at the reply, from 0.
    """

    session: str
    turn_id: str
    revision: int

    @property
    def response_id(self) -> str:
        """How clients name the attempt."""
        return f"{self.turn_id}.{self.revision}"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Someone begins to speak at `offset`."""

    offset: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Nobody speaks since `offset`, which is `silence` seconds ago.

    Attributes:
        offset: When.
        silence: How long ago that is.
        probability: Of speech in that silence after all, as the detection has it.
    """

    offset: float
    silence: float = 0.0
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class ActivityStarted:
    """The client says that the user begins at `offset` (manual activity)."""

    offset: float


@dataclass(frozen=True, slots=True)
class ActivityEnded:
    """The client says that the user has ended at `offset` and wants the answer."""

    offset: float


@dataclass(frozen=True, slots=True)
class AudioEnded:
    """The client sends no more audio; what was said so far, up to `offset`, is the turn."""

    offset: float


@dataclass(frozen=True, slots=True)
class TextReceived:
    """The user wrote something, which is a turn of its own."""

    text: str


@dataclass(frozen=True, slots=True)
class TextNoted:
    """The user wrote something to be remembered, not answered."""

    text: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client ends a response; an empty id means the current one.

    `heard` is how many seconds of it the user heard, where the client says so; then the response
    may have been over already.
    """

    response_id: str
    heard: float | None = None


@dataclass(frozen=True, slots=True)
class PlaybackReported:
    """The client has played `offset` seconds of a response; with `finished`, all it will play."""

    response_id: str
    offset: float
    finished: bool


@dataclass(frozen=True, slots=True)
class ReplyProduced:
    """A reply put something out.

    Attributes:
        key: The attempt that it belongs to.
        output: What it is; the controller only passes it on.
        audio_seconds: How much audio it holds.
    """

    key: ReplyKey
    output: object
    audio_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """A reply is generated to its end."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """A reply cannot go on."""

    key: ReplyKey
    problem: Problem


@dataclass(frozen=True, slots=True)
class WordsRecognized:
    """What was said in a turn so far; blank when it was no words. Answers `RecognizeWords`."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TurnScored:
    """Probability that the words of a turn so far are all of it. Answers `ScoreTurn`."""

    turn_id: str
    probability: float


@dataclass(frozen=True, slots=True)
class EchoJudged:
    """The speech that goes on is, or is not, the reply coming back through the microphone."""

    echo: bool


@dataclass(frozen=True, slots=True)
class BasisChanged:
    """What replies are made from has changed: the history, the functions or the configuration."""


@dataclass(frozen=True, slots=True)
class QueueMeasured:
    """Requests wait this many seconds for a place at the chat stage."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """A function call has its result, JSON; an error is an object with the field `error`."""

    call_id: str
    output: Any


@dataclass(frozen=True, slots=True)
class UtteranceFull:
    """A turn has as much audio as one may have, however fast that came."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by `WakeAt` has come. One too many does no harm."""


Event = (
    SpeechStarted
    | SpeechStopped
    | ActivityStarted
    | ActivityEnded
    | AudioEnded
    | TextReceived
    | TextNoted
    | CancelRequested
    | PlaybackReported
    | ReplyProduced
    | ReplyFinished
    | ReplyFailed
    | WordsRecognized
    | TurnScored
    | EchoJudged
    | BasisChanged
    | QueueMeasured
    | CallAnswered
    | UtteranceFull
    | Tick
)
