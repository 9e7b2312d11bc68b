"""JSON of clients, functions and models: whether it can be told on, and how protobuf holds it.

Contract: whatever JSON there is, nothing here raises. What UTF-8, JSON or the messages between
services have no form for is found here, before it is taken. Pure.
"""

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

from google.protobuf.json_format import Error, ParseDict
from google.protobuf.struct_pb2 import Value

# Messages nest a hundred levels at most; an object in a Struct takes three, and is nested itself.
MAX_DEPTH = 24
# Beyond this a double no longer holds every whole number.
_EXACT = 2**53
_MAX_PATH = 200
MAX_RESULT_BYTES = 65_536
"""Of what a function answers, as JSON; whoever answered."""


def unfit_path(value: Any) -> str | None:
    """Where half a character or a number that is not finite stands; None if nowhere."""
    for path, _, each in _parts(value):
        if not _is_fit(each):
            return path[:_MAX_PATH]
    return None


def fits_struct(value: Any) -> bool:
    """Whether a message between services can hold it, large whole numbers rounded."""
    return all(depth <= MAX_DEPTH and _is_double(each) for _, depth, each in _parts(value))


def as_told(value: Any) -> Any:
    """The value where a message holds it exactly, else its JSON text."""
    exact = all(_is_exact(depth, each) for _, depth, each in _parts(value))
    return value if exact else json_text(value)


def json_text(value: Any) -> str:
    """JSON as it is sent: readable, and always text that encodes as UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_fit(text) else json.dumps(value)


def is_too_large(result: Any) -> bool:
    """Whether the result of a function is more than a model is told."""
    return len(json_text(result).encode()) > MAX_RESULT_BYTES


def value_of(text: str) -> Value:
    """The JSON in a text where it comes out as it went in, else the text itself."""
    try:
        decoded = json.loads(text)
        if all(_is_exact(depth, each) for _, depth, each in _parts(decoded)):
            return ParseDict(decoded, Value())
    except (ValueError, OverflowError, RecursionError, Error):
        pass
    return Value(string_value=text)


def _parts(value: Any) -> Iterator[tuple[str, int, Any]]:
    """All values in it, keys too, by path and number of containers around; none recursively."""
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    while waiting:
        path, depth, each = part = waiting.pop()
        yield part
        if isinstance(each, dict):
            for key, inner in each.items():
                yield path, depth, key
                waiting.append((f"{path}.{key}" if path else key, depth + 1, inner))
        elif isinstance(each, list):
            waiting += [(f"{path}[{n}]", depth + 1, inner) for n, inner in enumerate(each)]


def _is_fit(each: Any) -> bool:
    if isinstance(each, str) and not each.isascii():
        try:
            each.encode()
        except UnicodeEncodeError:
            return False
    return not isinstance(each, float) or isfinite(each)


def _is_double(each: Any) -> bool:
    try:
        return not isinstance(each, int) or isfinite(float(each))
    except OverflowError:
        return False


def _is_exact(depth: int, each: Any) -> bool:
    rounded = isinstance(each, int) and abs(each) >= _EXACT
    return depth <= MAX_DEPTH and not rounded and _is_fit(each)
