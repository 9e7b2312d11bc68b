"""What the turn controller wants done.

Contract: frozen values only; the session runner executes them in order. An effect never answers:
what comes of it returns as an event.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from parley_gateway.turns.calls import Call
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.problem import Problem


class Decision(Enum):
    """What was decided about the turn."""

    HOLD = "hold"
    SPECULATE = "speculate"
    COMMIT = "commit"
    REOPEN = "reopen"


class Status(Enum):
    """How a response ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Cause(Enum):
    """Why a response was cut off."""

    USER_SPEECH = "user_speech"
    CLIENT_CANCELLED = "client_cancelled"
    USER_TEXT = "user_text"


@dataclass(frozen=True, slots=True)
class TellActivity:
    """Tell the client that the user begins or stops speaking at `offset`."""

    turn_id: str
    started: bool
    offset: float


@dataclass(frozen=True, slots=True)
class TellDecision:
    """Tell the client what was decided about the turn."""

    key: ReplyKey
    decision: Decision
    probability: float


@dataclass(frozen=True, slots=True)
class OpenUtterance:
    """Send the user's audio from `offset` on to the tokenizer."""

    turn_id: str
    offset: float


@dataclass(frozen=True, slots=True)
class DropUtterance:
    """What the user said in this turn was nothing; forget it."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class RecognizeWords:
    """Find out whether the turn so far holds words; answer by `WordsRecognized`, or not at all."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class ScoreTurn:
    """Judge whether the turn so far is finished; answer by `TurnScored`, or not at all."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class StartReply:
    """Reply to the turn's utterance, or to `text` where the user wrote.

    Attributes:
        key: The attempt.
        text: What the user wrote; None when the user spoke.
        speech_ended_at: The controller's clock when the user stopped speaking or wrote.
        speculative: The user may go on: what comes is kept back until `CommitReply`, and nothing
            is written down. Otherwise the utterance is over, and the reply audible from now on.
    """

    key: ReplyKey
    text: str | None
    speech_ended_at: float
    speculative: bool = False


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The turn has ended as the speculative attempt took it: it is the reply.

    Attributes:
        key: The attempt.
        saved: Seconds by which its first sound comes earlier for having been begun early.
    """

    key: ReplyKey
    saved: float


@dataclass(frozen=True, slots=True)
class DiscardReply:
    """A speculative attempt came to nothing. `CancelReply` went before where it still ran."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop all work on an attempt."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """The interruption was none: the reply goes on as `key`, behind `heard` seconds of `before`."""

    key: ReplyKey
    before: ReplyKey
    heard: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send what an attempt put out, without the first `skip` seconds of its sound.

    Attributes:
        key: What the client knows the reply by.
        output: What was put out.
        skip: Seconds that were heard before.
    """

    key: ReplyKey
    output: object
    skip: float = 0.0


@dataclass(frozen=True, slots=True)
class HoldSending:
    """The user makes a sound: let nothing more of the reply out until it is known what it is."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class ReleaseSending:
    """It was nothing: let the reply out again."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class RequestCall:
    """Have a function called; `reply` is what the client knows the reply by."""

    reply: ReplyKey
    call: Call


@dataclass(frozen=True, slots=True)
class CancelCalls:
    """The results of these calls are not wanted any more."""

    key: ReplyKey
    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeliverResult:
    """Give the result of a call to the attempt that made it, or to the history of its turn."""

    key: ReplyKey
    call: Call
    output: Any


@dataclass(frozen=True, slots=True)
class DropStale:
    """Something came from an attempt that does not count any more; count it, send nothing."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class TellInterruption:
    """Tell the client that the response is cut off after `heard` seconds of its audio."""

    key: ReplyKey
    cause: Cause
    heard: float


@dataclass(frozen=True, slots=True)
class CompleteResponse:
    """Tell the client that the response is generated, or why not."""

    key: ReplyKey
    status: Status
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RecordTurn:
    """Write down how the turn ended; `heard` is seconds of its audio, None for all of it."""

    key: ReplyKey
    status: Status
    heard: float | None


@dataclass(frozen=True, slots=True)
class TellNotice:
    """Tell the client of something that does not end the stream."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NoteText:
    """Write down what the user wrote, a turn without a reply."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Feed a `Tick` at this time of the controller's clock. The newest counts; None wants none."""

    at: float | None


Effect = (
    TellActivity
    | TellDecision
    | OpenUtterance
    | DropUtterance
    | RecognizeWords
    | ScoreTurn
    | StartReply
    | CommitReply
    | DiscardReply
    | CancelReply
    | ResumeReply
    | Send
    | HoldSending
    | ReleaseSending
    | RequestCall
    | CancelCalls
    | DeliverResult
    | DropStale
    | TellInterruption
    | CompleteResponse
    | RecordTurn
    | NoteText
    | TellNotice
    | WakeAt
)
