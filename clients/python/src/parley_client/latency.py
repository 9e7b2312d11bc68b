"""What a reply took: tokens, and time per stage.

All times are seconds on the gateway's clock, which starts when it has the last user input of the
turn.
"""

from dataclasses import asdict, dataclass
from typing import Any

from google.protobuf import duration_pb2
from parley.conversation.v1 import conversation_pb2, latency_pb2

# What the `output_count` of a stage counts.
UNITS = {"tokenizer": "tokens", "chat": "tokens", "tts": "tokens", "vocoder": "samples"}


def seconds(duration: duration_pb2.Duration) -> float:
    """A protobuf duration in seconds."""
    return duration.ToNanoseconds() / 1e9


@dataclass(frozen=True)
class Stage:
    """Time marks of one stage.

    Attributes:
        name: ``tokenizer``, ``chat``, ``tts``, ``vocoder`` or ``context``.
        start_s: when it got its first input; negative if the user was still speaking.
        first_output_s: when its first output came.
        end_s: when its last output came.
        outputs: how many units it put out.
        unit: ``tokens``, ``samples``, or empty.
    """

    name: str
    start_s: float
    first_output_s: float
    end_s: float
    outputs: int
    unit: str


@dataclass(frozen=True)
class Latency:
    """Where the time of a reply went.

    Attributes:
        stages: in order of their work.
        first_audio_s: end of user input to the first audio sent; 0 when there was none.
        gap_s: end of user speech to the first audio, end-of-turn decision included; 0 outside
            conversations.
        total_s: end of user input to the last audio sent.
    """

    stages: tuple[Stage, ...]
    first_audio_s: float
    gap_s: float
    total_s: float

    @classmethod
    def from_proto(cls, message: latency_pb2.LatencyBreakdown) -> "Latency":
        """Reads the message of the contract."""
        return cls(
            stages=tuple(
                Stage(
                    name=each.stage,
                    start_s=seconds(each.start_offset),
                    first_output_s=seconds(each.first_output_offset),
                    end_s=seconds(each.end_offset),
                    outputs=each.output_count,
                    unit=UNITS.get(each.stage, ""),
                )
                for each in message.stages
            ),
            first_audio_s=seconds(message.time_to_first_audio),
            gap_s=seconds(message.gap),
            total_s=seconds(message.total),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; the stages by name."""
        stages = {}
        for stage in self.stages:
            values = asdict(stage)
            stages[values.pop("name")] = values
        return {
            "first_audio_s": self.first_audio_s,
            "gap_s": self.gap_s,
            "total_s": self.total_s,
            "stages": stages,
        }


@dataclass(frozen=True)
class Usage:
    """Tokens spent on a reply.

    Attributes:
        prompt_tokens: tokens of the chat prompt.
        cached_tokens: of these, found in the prefix cache.
        audio_tokens: of the prompt tokens, audio.
        output_tokens: text tokens generated.
        audio_output_tokens: dual-code audio tokens generated.
        audio_s: seconds of audio sent.
    """

    prompt_tokens: int
    cached_tokens: int
    audio_tokens: int
    output_tokens: int
    audio_output_tokens: int
    audio_s: float

    @classmethod
    def from_proto(cls, message: conversation_pb2.Usage) -> "Usage":
        """Reads the message of the contract."""
        return cls(
            prompt_tokens=message.prompt_tokens,
            cached_tokens=message.cached_tokens,
            audio_tokens=message.audio_tokens,
            output_tokens=message.output_tokens,
            audio_output_tokens=message.audio_output_tokens,
            audio_s=seconds(message.audio_duration),
        )
