"""How a conversation stands, and what was said in it.

Contract: pure bookkeeping over the events of a conversation and the progress of the player. What a
person would want to read is handed to `tell` once, when it is settled: a reply when it has been
heard or cut off, words of the user when they will not change. Not for sound or for the wire.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from parley.conversation.v1 import conversation_pb2 as pb

from parley_client.answer import status_name
from parley_client.conversation import ConversationEvent
from parley_client.json_object import json_object
from parley_client.latency import Latency, seconds
from parley_client.talk.player import Progress


class Phase(Enum):
    """Who has the floor."""

    LISTENING = "listening"
    USER_SPEAKS = "you speak"
    THINKING = "thinking"
    SPEAKING = "speaking"


@dataclass(frozen=True)
class UserSaid:
    """Words of the user, written down."""

    turn_id: str
    text: str


@dataclass
class Reply:
    """One response.

    Attributes:
        response_id: its id.
        turn_id: turn that it answers.
        speculative: it was begun before the end of the turn was sure.
        text: as generated so far.
        played_s: seconds of it that were played here.
        status: how its making ended, e.g. ``COMPLETED``; empty while it is made.
        interruption: why it was cut off, e.g. ``USER_SPEECH``; empty when it was not.
        heard_text: what was heard of it when it was cut off.
        latency: where the time went; None while it is made.
        problem: why it failed, with its reason; empty when it did not.
    """

    response_id: str
    turn_id: str
    speculative: bool = False
    text: str = ""
    played_s: float = 0.0
    status: str = ""
    interruption: str = ""
    heard_text: str = ""
    latency: Latency | None = None
    problem: str = ""
    _silent: bool = True
    _played_out: bool = False

    @property
    def settled(self) -> bool:
        """Nothing of it will change any more."""
        heard = self._silent or self._played_out or bool(self.interruption)
        return bool(self.status) and heard


@dataclass(frozen=True)
class Called:
    """The model calls a function."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Noted:
    """Something that did not end the conversation."""

    text: str
    reason: str


Remark = UserSaid | Reply | Called | Noted


@dataclass
class Dialogue:
    """A conversation.

    Attributes:
        tell: takes what is settled.
        changed: is called after anything that may have changed the phase.
        remarks: all of it.
        session: its name; empty before it began.
        user_words: what the user is saying, as far as it was recognized.
    """

    tell: Callable[[Remark], None] = lambda remark: None
    changed: Callable[[], None] = lambda: None
    remarks: list[Remark] = field(default_factory=list)
    session: str = ""
    user_words: str = ""
    _talking: bool = False
    _awaiting: bool = False
    _calls: set[str] = field(default_factory=set)
    _open: dict[str, Reply] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """Who has the floor."""
        if self._talking:
            return Phase.USER_SPEAKS
        if any(not reply._silent for reply in self._open.values()):
            return Phase.SPEAKING
        if self._awaiting or self._open or self._calls:
            return Phase.THINKING
        return Phase.LISTENING

    @property
    def reply(self) -> Reply | None:
        """The newest reply that is not settled."""
        return next(reversed(self._open.values()), None)

    def begin(self, session: str) -> None:
        """Takes note of a stream that begins; what an earlier one left open will not go on."""
        self.session = session
        self._talking = self._awaiting = False
        self._calls.clear()
        for reply in list(self._open.values()):
            reply.status = reply.status or "CANCELLED"
            self._settle(reply)
        self.changed()

    def take(self, event: ConversationEvent) -> None:
        """Takes an event."""
        message = event.message
        match event.kind:
            case "speech_activity":
                self._on_activity(message.type, event.turn_id)
            case "user_transcript":
                self._on_transcript(message, event.turn_id)
            case "response_started":
                self._awaiting = False
                self._open[event.response_id] = Reply(
                    event.response_id, event.turn_id, message.speculative
                )
            case "text_delta" | "audio" | "interruption" | "response_completed":
                reply = self._open.get(event.response_id)
                if reply:
                    self._on_reply(reply, event.kind, message)
            case "function_call":
                self._calls.add(message.call_id)
                arguments = json_object(message.arguments)
                self._say(Called(message.call_id, message.name, arguments))
            case "function_call_cancellation":
                self._calls.difference_update(message.call_ids)
                self._say(Noted(f"not wanted any more: {', '.join(message.call_ids)}", "CALLS"))
            case "go_away":
                self._say(Noted(message.reason or "the server leaves", "GO_AWAY"))
            case "notice":
                self._say(Noted(message.problem.message, message.problem.reason))
        self.changed()

    def note(self, remark: Noted) -> None:
        """Takes note of something that happened on this side."""
        self._say(remark)

    def returned(self, call_id: str) -> None:
        """Takes note that a call was answered."""
        self._calls.discard(call_id)
        self.changed()

    def played(self, progress: Progress) -> None:
        """Takes note of what was heard."""
        reply = self._open.get(progress.response_id)
        if reply:
            reply.played_s = progress.played_s
            reply._played_out = reply._played_out or progress.finished
            self._check(reply)
            self.changed()

    def _on_activity(self, kind: "pb.ActivityType.ValueType", turn_id: str) -> None:
        self._talking = kind == pb.ACTIVITY_TYPE_START
        # Speech that belongs to no turn is none that will be answered.
        self._awaiting = not self._talking and bool(turn_id)

    def _on_transcript(self, message: pb.UserTranscript, turn_id: str) -> None:
        if message.is_final:
            self.user_words = ""
            self._say(UserSaid(turn_id, message.stable_text))
        else:
            self.user_words = message.stable_text + message.unstable_text

    def _on_reply(self, reply: Reply, kind: str, message: Any) -> None:
        match kind:
            case "text_delta":
                reply.text += message.text
            case "audio":
                reply._silent = reply._silent and not message.content
            case "interruption":
                name = pb.InterruptionReason.Name(message.reason)
                reply.interruption = name.removeprefix("INTERRUPTION_REASON_")
                reply.heard_text = message.heard_text
                reply.played_s = seconds(message.heard_offset)
            case "response_completed":
                reply.status = status_name(message.status)
                reply.latency = Latency.from_proto(message.latency)
                if message.HasField("error"):
                    reply.problem = f"{message.error.message} [{message.error.reason}]"
        self._check(reply)

    def _check(self, reply: Reply) -> None:
        if reply.settled:
            self._settle(reply)

    def _settle(self, reply: Reply) -> None:
        del self._open[reply.response_id]
        self._say(reply)

    def _say(self, remark: Remark) -> None:
        self.remarks.append(remark)
        self.tell(remark)
