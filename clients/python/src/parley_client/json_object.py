"""JSON objects out of protobuf's Struct, with whole numbers as they were written.

Contract: protobuf makes every 3 a 3.0; functions take counts as integers.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct


def json_object(message: Struct) -> dict[str, Any]:
    """Reads a JSON object."""
    return {name: _whole(each) for name, each in MessageToDict(message).items()}


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
