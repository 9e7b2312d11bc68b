"""Sessions and their turns, as the server tells them."""

from dataclasses import dataclass
from datetime import datetime

from parley.conversation.v1 import conversation_pb2

from parley_client.answer import status_name
from parley_client.latency import seconds
from parley_client.voices import moment


@dataclass(frozen=True)
class Session:
    """A conversation that outlives its streams.

    Attributes:
        name: ``tenants/{tenant}/sessions/{session}``.
        create_time: when it was made.
        expire_time: when it ends unless used again.
        turn_count: turns so far.
    """

    name: str
    create_time: datetime | None
    expire_time: datetime | None
    turn_count: int

    @classmethod
    def from_proto(cls, message: conversation_pb2.Session) -> "Session":
        """Reads the message of the contract."""
        return cls(
            name=message.name,
            create_time=moment(message.create_time),
            expire_time=moment(message.expire_time),
            turn_count=message.turn_count,
        )


@dataclass(frozen=True)
class Turn:
    """What was said in one turn.

    Attributes:
        turn_id: its id.
        create_time: when it began.
        user_text: what the user said or wrote; empty while ``transcript_pending``.
        transcript_pending: the transcript is still being made.
        heard_text: what the user heard of the reply.
        generated_text: the whole reply.
        status: how it ended, e.g. ``COMPLETED``.
        user_audio_s: seconds that the user spoke.
    """

    turn_id: str
    create_time: datetime | None
    user_text: str
    transcript_pending: bool
    heard_text: str
    generated_text: str
    status: str
    user_audio_s: float

    @classmethod
    def from_proto(cls, message: conversation_pb2.Turn) -> "Turn":
        """Reads the message of the contract."""
        return cls(
            turn_id=message.turn_id,
            create_time=moment(message.create_time),
            user_text=message.user_text,
            transcript_pending=message.transcript_pending,
            heard_text=message.heard_text,
            generated_text=message.generated_text,
            status=status_name(message.status),
            user_audio_s=seconds(message.user_audio_duration),
        )
