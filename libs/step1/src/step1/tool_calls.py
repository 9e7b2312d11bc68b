"""Function calls as the model writes them: `<tool_call>function`, name, arguments, `</tool_call>`.

The three lines are separated by newlines (spec 8.6). `ToolCallParser` takes the reply's text as it
comes and tells text for the user from calls; a tag may be cut anywhere between two pieces of text.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"
_KIND = "function"
# Protobuf reads a hundred messages deep; a level of JSON takes up to three, their carrier a few.
_MOST_LEVELS = 24


class ToolCallError(ValueError):
    """The model wrote a call that cannot be read. The message is one line."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole function call; a protobuf Struct holds the arguments."""

    name: str
    arguments: dict[str, Any]


def render_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as it stands in the assistant's turn."""
    return f"{_OPEN}{_KIND}\n{name}\n{json.dumps(dict(arguments), ensure_ascii=False)}{_CLOSE}"


class ToolCallParser:
    """Splits one reply into text and calls, in order."""

    def __init__(self) -> None:
        self._buffer = ""
        self._in_call = False

    def feed(self, text: str) -> list[TextDelta | ToolCall]:
        """What became certain with this text. What may be the beginning of a tag waits.

        Raises:
            ToolCallError: A block ended and is not a call.
        """
        self._buffer += text
        events: list[TextDelta | ToolCall] = []
        while True:
            tag = _CLOSE if self._in_call else _OPEN
            before, found, rest = self._buffer.partition(tag)
            if not found:
                break
            if self._in_call:
                events.append(_parse(before))
            elif before:
                events.append(TextDelta(before))
            self._in_call = not self._in_call
            self._buffer = rest
        if not self._in_call:
            keep = _partial_tag(self._buffer)
            ready = self._buffer[: len(self._buffer) - keep]
            self._buffer = self._buffer[len(ready) :]
            if ready:
                events.append(TextDelta(ready))
        return events

    def finish(self) -> list[TextDelta | ToolCall]:
        """The rest at the end of the reply.

        Raises:
            ToolCallError: The reply ended inside a call.
        """
        if self._in_call:
            raise ToolCallError("the reply ended inside a function call")
        rest, self._buffer = self._buffer, ""
        return [TextDelta(rest)] if rest else []


def _partial_tag(text: str) -> int:
    """Length of the longest end of `text` that begins the opening tag."""
    for length in range(min(len(text), len(_OPEN) - 1), 0, -1):
        if _OPEN.startswith(text[-length:]):
            return length
    return 0


def _parse(block: str) -> ToolCall:
    kind, _, rest = block.strip().partition("\n")
    name, _, arguments = rest.partition("\n")
    if kind.strip() != _KIND or not name.strip():
        raise ToolCallError(f"a function call begins with {kind.strip()[:40]!r} and has no name")
    try:
        values = json.loads(arguments or "{}", parse_constant=_refuse)
        _check(values)
    except RecursionError:
        raise ToolCallError(f"the arguments of {name.strip()!r} are nested too deeply") from None
    except ValueError as error:
        raise ToolCallError(f"the arguments of {name.strip()!r} are not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ToolCallError(f"the arguments of {name.strip()!r} are not an object")
    return ToolCall(name.strip(), values)


def _check(value: Any, level: int = 1) -> None:
    """Refuses what no protobuf Struct carries: half characters, numbers no float holds, depth.

    Raises:
        ValueError: The value cannot be carried.
    """
    match value:
        case str():
            _check_text(value)
        case int() | float():
            _check_number(value)
        case list() | dict():
            if level > _MOST_LEVELS:
                raise ValueError(f"they have more than {_MOST_LEVELS} levels")
            for item in value.values() if isinstance(value, dict) else value:
                _check(item, level + 1)
            for key in value if isinstance(value, dict) else ():
                _check_text(key)


def _check_text(text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("they hold half of a surrogate pair")


def _check_number(number: float) -> None:
    try:
        if math.isfinite(number):
            return
    except OverflowError:
        pass
    raise ValueError("they hold a number that is too large")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
