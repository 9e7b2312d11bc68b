"""A chat as plain values: messages of parts. The prompt is built from these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class TextPart:
    """UTF-8 text. Markers inside it are plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Speech as dual-code ids 0..5119."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FunctionCallPart:
    """A call that the assistant made: name and JSON arguments."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunctionResultPart:
    """What a call returned: any JSON value; text is passed on as it is."""

    name: str
    output: Any


Part = TextPart | AudioPart | FunctionCallPart | FunctionResultPart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: Who speaks.
        parts: What is said, in order. None opens the turn without closing it (spec 2.6: content
            None); of a prompt only the last message may be open.
    """

    role: Role
    parts: tuple[Part, ...] | None


@dataclass(frozen=True, slots=True)
class FunctionDeclaration:
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
