"""Seconds and protobuf's durations and timestamps, and JSON as protobuf has it."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from parley_core.json_values import plain_json


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
    """Writes a JSON value that a message holds (`json_fit`)."""
    return ParseDict(value, Value())
