"""Messages that nobody means: random bytes, and valid messages with fields gone wrong.

Contract: everything follows from the `Random` that is given, so a finding can be had again.
"""

import math
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTS = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 1_000_000)
_FLOATS = (0.0, -1.0, math.inf, -math.inf, math.nan, 1e300, -1e-300)
_TEXTS = (
    "", " ", "\0", "a" * 100_000, "../../etc/passwd", "tenants/x/sessions/y", "%s%n", "🦜" * 50,
    "tenants/default/sessions/" + "s" * 70, "\u202e", "{}", "NaN", "\ufffd",
)  # fmt: skip
_BYTES = (
    b"",
    b"\0",
    b"\xff" * 7,
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS\0",
    b"\1\2" * 800,
)
_DEPTH = 4


def noise(random: Random) -> bytes:
    """Bytes that are no message, or only by accident."""
    return random.randbytes(random.choice((0, 1, 2, 5, 17, 100, 3000)))


def broken(random: Random, message: Message) -> bytes:
    """A message on the wire, with bits flipped, a piece missing, or more behind it."""
    wire = bytearray(message.SerializeToString())
    match random.randrange(3):
        case 0 if wire:
            for _ in range(random.randint(1, 4)):
                wire[random.randrange(len(wire))] ^= 1 << random.randrange(8)
        case 1:
            del wire[random.randint(0, len(wire)) :]
        case _:
            wire += noise(random)
    return bytes(wire)


def fill(random: Random, message: Message, depth: int = 0) -> None:
    """Sets fields to values that are of their type and mostly senseless."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.5 or (depth >= _DEPTH and field.message_type):
            continue
        if _is_map(field):
            continue
        if field.is_repeated:
            for _ in range(random.choice((1, 2, 30))):
                _add(random, message, field, depth)
        elif field.message_type:
            fill(random, getattr(message, field.name), depth + 1)
            getattr(message, field.name).SetInParent()
        else:
            _set(random, message, field)


def _add(random: Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    values = getattr(message, field.name)
    if field.message_type:
        fill(random, values.add(), depth + 1)
    else:
        values.append(_value(random, field))


def _set(random: Random, message: Message, field: FieldDescriptor) -> None:
    setattr(message, field.name, _value(random, field))


def _value(random: Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return random.choice(_BYTES if field.type == FieldDescriptor.TYPE_BYTES else _TEXTS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice(_FLOATS)
    low, high = _RANGES[kind]
    return random.choice([each for each in _INTS if low <= each <= high])


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _is_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return bool(entry and entry.GetOptions().map_entry)


def json_noise(random: Random, depth: int = 0) -> Any:
    """A JSON value of any shape."""
    match random.randrange(8 if depth < _DEPTH else 6):
        case 0:
            return None
        case 1:
            return random.random() < 0.5
        case 2:
            return random.choice(_INTS)
        case 3:
            return random.choice((0.5, -1e300, 1e-9))
        case 4 | 5:
            return random.choice(_TEXTS)
        case 6:
            return [json_noise(random, depth + 1) for _ in range(random.randrange(4))]
        case _:
            return {
                random.choice(_TEXTS)[:20]: json_noise(random, depth + 1)
                for _ in range(random.randrange(4))
            }
