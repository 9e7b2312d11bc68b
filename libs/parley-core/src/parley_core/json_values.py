"""JSON values out of protobuf's Struct and Value, as a person would have written them.

Not for messages of ours: those have fields.
"""

from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.json_format import Error, MessageToDict

from parley_core.errors import InvalidArgument

# Beyond this a float no longer holds every whole number.
_EXACT = 2**53


def plain_json(value: struct_pb2.Struct | struct_pb2.Value, *, field: str) -> Any:
    """Dicts, lists, strings, numbers, booleans and None; whole numbers without a fraction.

    Args:
        value: of a request; an unset Value is None.
        field: request field to name in the error.

    Raises:
        InvalidArgument: reason JSON_INVALID, a number is not finite.
    """
    if isinstance(value, struct_pb2.Value) and value.WhichOneof("kind") is None:
        return None
    try:
        return _whole(MessageToDict(value))
    except (ValueError, TypeError, Error):
        raise InvalidArgument(
            f"{field} is no JSON value", field=field, reason="JSON_INVALID"
        ) from None


def _whole(value: Any) -> Any:
    """Protobuf's Struct turns every 3 into 3.0."""
    match value:
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value
