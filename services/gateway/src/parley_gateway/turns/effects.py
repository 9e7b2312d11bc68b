"""What the turn controller wants done.

Contract: frozen values only; the session runner executes them in order. An effect never answers:
what comes of it returns as an event.
"""

from dataclasses import dataclass
from enum import Enum

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
class StartReply:
    """Close the turn's utterance and reply to it, or to `text` where the user wrote.

    Attributes:
        key: The attempt.
        text: What the user wrote; None when the user spoke.
        speech_ended_at: The controller's clock when the user stopped speaking or wrote.
    """

    key: ReplyKey
    text: str | None
    speech_ended_at: float


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop all work on an attempt."""

    key: ReplyKey


@dataclass(frozen=True, slots=True)
class Send:
    """Send what an attempt put out."""

    key: ReplyKey
    output: object


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
class WakeAt:
    """Feed a `Tick` at this time of the controller's clock. The newest counts; None wants none."""

    at: float | None


Effect = (
    TellActivity
    | TellDecision
    | OpenUtterance
    | StartReply
    | CancelReply
    | Send
    | DropStale
    | TellInterruption
    | CompleteResponse
    | RecordTurn
    | TellNotice
    | WakeAt
)
