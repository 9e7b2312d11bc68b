"""Messages of a chat: what history is stored as and prompts are made of.

Contract: frozen values with a JSON form that outlives versions of this service. The same shapes as
`parley.chat.v1.Message`; `service` translates. Not for: how a model writes them down (chat-llm).
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text."""

    text: str


@dataclass(frozen=True, slots=True)
class Audio:
    """Speech as interleaved dual-code ids (0..5119)."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call that the assistant made; `arguments` is a JSON object as text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """What a call returned; `output` is a JSON value as text."""

    call_id: str
    name: str
    output: str


Part = Text | Audio | FunctionCall | FunctionResult
_KINDS: dict[str, type[Part]] = {
    "text": Text,
    "audio": Audio,
    "call": FunctionCall,
    "result": FunctionResult,
}
_KIND_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: who speaks, and its parts in order."""

    role: Role
    parts: tuple[Part, ...]


def dump_messages(messages: tuple[Message, ...]) -> str:
    """Write messages as JSON; the same messages always give the same text."""
    return json.dumps(
        [
            {
                "role": message.role.value,
                "parts": [
                    [_KIND_NAMES[type(part)], *(getattr(part, name) for name in part.__slots__)]
                    for part in message.parts
                ],
            }
            for message in messages
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def load_messages(text: str) -> tuple[Message, ...]:
    """Read what `dump_messages` wrote."""
    return tuple(
        Message(Role(entry["role"]), tuple(_part(*part) for part in entry["parts"]))
        for entry in json.loads(text)
    )


def _part(kind: str, *values: Any) -> Part:
    if kind == "audio":
        return Audio(tuple(values[0]))
    return _KINDS[kind](*values)
