"""Function calls that wait for their results.

Contract: pure. A call is open from when it is asked for until it is answered, its time is up, or
its turn is cut off; the last does not end calls that survive an interruption.
Not for: making calls (`tools`), or the order in which results reach the model (`reply`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from parley_gateway.turns.events import ReplyKey


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the model makes.

    Attributes:
        call_id: Pairs it with its result.
        name: Of the function.
        arguments: JSON object.
        survives_interruption: It goes on when the user interrupts.
        timeout: Seconds to answer in.
        own: The gateway makes it; else the client does.
    """

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    survives_interruption: bool = False
    timeout: float = 30.0
    own: bool = False


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that was asked for.

    Attributes:
        key: The attempt that waits for it.
        call: What was asked.
        due: When its time is up.
    """

    key: ReplyKey
    call: Call
    due: float


class Calls:
    """The open calls of one conversation."""

    def __init__(self) -> None:
        self._open: dict[str, OpenCall] = {}

    def open(self, key: ReplyKey, call: Call, now: float) -> None:
        """Takes note of a call that is asked for now."""
        self._open[call.call_id] = OpenCall(key, call, now + call.timeout)

    def close(self, call_id: str) -> OpenCall | None:
        """Takes a call out; None if none of that id is open."""
        return self._open.pop(call_id, None)

    def cut_off(self, key: ReplyKey) -> tuple[str, ...]:
        """Takes the calls of an attempt out, but for those that survive.

        Returns:
            Their ids, in the order of the calls.
        """
        ended = tuple(
            call_id
            for call_id, each in self._open.items()
            if each.key == key and not each.call.survives_interruption
        )
        for call_id in ended:
            del self._open[call_id]
        return ended

    def overdue(self, now: float) -> list[OpenCall]:
        """Takes out the calls whose time is up."""
        late = [each for each in self._open.values() if each.due <= now]
        for each in late:
            del self._open[each.call.call_id]
        return late

    def due(self) -> float:
        """When the next call's time is up."""
        return min((each.due for each in self._open.values()), default=inf)
