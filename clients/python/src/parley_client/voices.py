"""Voices and transcripts, as the server tells them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf import timestamp_pb2
from parley.conversation.v1 import speech_pb2

from parley_client.latency import seconds


def moment(timestamp: timestamp_pb2.Timestamp) -> datetime | None:
    """A protobuf timestamp in UTC; None when not set."""
    if not timestamp.seconds and not timestamp.nanos:
        return None
    return timestamp.ToDatetime(tzinfo=UTC)


@dataclass(frozen=True)
class Voice:
    """A voice.

    Attributes:
        name: unique name.
        default: it speaks when none is named.
        cloned: it was cloned by a caller and can be deleted.
        prompt_text: transcript of the prompt recording.
        language_codes: BCP-47 languages of the prompt.
        prompt_s: seconds of the prompt recording.
        create_time: when it was made, where known.
        supports_rap: it can rap.
        supports_humming: it can hum.
    """

    name: str
    default: bool
    cloned: bool
    prompt_text: str
    language_codes: tuple[str, ...]
    prompt_s: float
    create_time: datetime | None
    supports_rap: bool
    supports_humming: bool

    @classmethod
    def from_proto(cls, message: speech_pb2.Voice, *, default: bool = False) -> "Voice":
        """Reads the message of the contract."""
        return cls(
            name=message.name,
            default=default,
            cloned=message.cloned,
            prompt_text=message.prompt_text,
            language_codes=tuple(message.language_codes),
            prompt_s=seconds(message.prompt_duration),
            create_time=moment(message.create_time),
            supports_rap=message.supports_rap,
            supports_humming=message.supports_humming,
        )


@dataclass(frozen=True)
class Word:
    """A recognised word and when it was said, in seconds of the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """A recording, written down.

    Attributes:
        text: what was said.
        words: its words.
        duration_s: seconds of the recording.
    """

    text: str
    words: tuple[Word, ...]
    duration_s: float

    @classmethod
    def from_proto(cls, message: speech_pb2.RecognizeResponse) -> "Transcript":
        """Reads the message of the contract."""
        return cls(
            text=message.text,
            words=tuple(
                Word(word.text, seconds(word.start_offset), seconds(word.end_offset))
                for word in message.words
            ),
            duration_s=seconds(message.audio_duration),
        )
