"""Seconds and protobuf's durations and timestamps, and JSON as protobuf has it."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Error as MessageError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from parley_core.errors import InvalidArgument
from parley_core.json_values import plain_json

# Protobuf reads messages 100 deep; a list is two, an object three, and some are around the value.
_MAX_DEPTH = 28


def duration(seconds: float) -> Duration:
    """Writes seconds, to the nanosecond."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """Reads a duration as seconds."""
    return float(message.ToNanoseconds()) / 1e9


def timestamp(unix_seconds: float) -> Timestamp:
    """Writes a Unix time."""
    message = Timestamp()
    message.FromNanoseconds(round(unix_seconds * 1e9))
    return message


def unix_time(message: Timestamp) -> float:
    """Reads a timestamp as Unix time in seconds."""
    return float(message.ToNanoseconds()) / 1e9


def struct(values: Mapping[str, Any]) -> Struct:
    """Writes a JSON object."""
    return ParseDict(dict(values), Struct())


def from_struct(message: Struct) -> dict[str, Any]:
    """Reads a JSON object; whole numbers are integers.

    Raises:
        InvalidArgument: reason JSON_INVALID, a number is not finite.
    """
    return dict(plain_json(message, field="struct"))


def json_value(value: Any) -> Value:
    """Writes any JSON value.

    Raises:
        ValueError: Protobuf has no form for it: it is nested too deep, or holds half a character or
            a number that is not finite or too large.
    """
    try:
        written = ParseDict(value, Value())
        plain_json(written, field="value")
    except (ParseError, InvalidArgument, MessageError, OverflowError, RecursionError) as error:
        raise ValueError(f"no JSON that a message can hold: {type(error).__name__}") from None
    if _depth(value) > _MAX_DEPTH:
        raise ValueError(f"no JSON that a message can hold: nested over {_MAX_DEPTH} deep")
    return written


def _depth(value: Any) -> int:
    within = value.values() if isinstance(value, Mapping) else value
    if isinstance(within, str) or not isinstance(within, Iterable):
        return 0
    return 1 + max(map(_depth, within), default=0)
