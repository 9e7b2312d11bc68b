"""How a question or a conversation is to be answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import duration_pb2
from parley.conversation.v1 import conversation_pb2

Eagerness = Literal["low", "medium", "high", "auto"]


def duration(value_s: float | None) -> duration_pb2.Duration | None:
    """Seconds as a protobuf duration; None stays None (not set)."""
    if value_s is None:
        return None
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(value_s * 1e9))
    return message


@dataclass(frozen=True)
class Function:
    """A function of the client's that the model may call.

    Attributes:
        name: letters, digits, ``_``, ``-``; up to 64 characters.
        description: what it does and when to call it.
        parameters: JSON schema of the arguments object.
        survives_interruption: the call goes on when the user interrupts the turn.
        timeout_s: time the client has to answer; None: the server's default.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    survives_interruption: bool = False
    timeout_s: float | None = None

    def to_proto(self) -> conversation_pb2.FunctionDeclaration:
        """The message of the contract."""
        message = conversation_pb2.FunctionDeclaration(
            name=self.name,
            description=self.description,
            survives_interruption=self.survives_interruption,
            timeout=duration(self.timeout_s),
        )
        message.parameters.update(dict(self.parameters or {}))
        return message


@dataclass(frozen=True)
class TurnPolicy:
    """When a turn ends and who may interrupt. Meaningful for conversations only.

    Attributes:
        manual_activity: the client marks the user's speech; the server's voice detection is off.
        eagerness: how quickly a pause is taken for the end; None: the server's default.
        end_of_turn_silence_s: silence that ends a turn; overrides eagerness.
        no_interruption: the user cannot interrupt by talking.
        echo_cancelled: the client cancels echo.
        no_speculation: do not start replies before the turn is known to have ended.
    """

    manual_activity: bool = False
    eagerness: Eagerness | None = None
    end_of_turn_silence_s: float | None = None
    no_interruption: bool = False
    echo_cancelled: bool = False
    no_speculation: bool = False

    def to_proto(self) -> conversation_pb2.TurnPolicy:
        """The message of the contract."""
        eagerness = (
            conversation_pb2.Eagerness.Value(f"EAGERNESS_{self.eagerness.upper()}")
            if self.eagerness
            else conversation_pb2.EAGERNESS_UNSPECIFIED
        )
        return conversation_pb2.TurnPolicy(
            manual_activity=self.manual_activity,
            eagerness=eagerness,
            end_of_turn_silence=duration(self.end_of_turn_silence_s),
            no_interruption=self.no_interruption,
            echo_cancelled=self.echo_cancelled,
            no_speculation=self.no_speculation,
        )


@dataclass(frozen=True)
class ConversationConfig:
    """How answers are made. What is left out is the session's or the server's default.

    Attributes:
        voice: name of the voice that answers.
        style_tags: tags in front of every answer, e.g. ``高兴1``.
        system_prompt: persona and instructions.
        functions: what the model may call.
        turn_policy: when turns end (conversations only).
        temperature: 0 is greedy.
        top_p: nucleus.
        max_output_tokens: text tokens in an answer at most.
        seed: makes answers repeatable.
    """

    voice: str = ""
    style_tags: tuple[str, ...] = ()
    system_prompt: str = ""
    functions: tuple[Function, ...] = ()
    turn_policy: TurnPolicy | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None

    def to_proto(self) -> conversation_pb2.ConversationConfig:
        """The message of the contract; what is None stays unset."""
        message = conversation_pb2.ConversationConfig(
            voice=self.voice,
            style_tags=self.style_tags,
            system_prompt=self.system_prompt,
            functions=[each.to_proto() for each in self.functions],
            turn_policy=self.turn_policy.to_proto() if self.turn_policy else None,
        )
        sampling: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_output_tokens": self.max_output_tokens,
            "seed": self.seed,
        }
        given = {key: value for key, value in sampling.items() if value is not None}
        if given:
            message.sampling.CopyFrom(conversation_pb2.Sampling(**given))
        return message
