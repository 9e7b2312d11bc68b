"""Chooses which windows take an Euler step together; no tensors, no clock of its own.

First go newcomers, whose listeners have heard nothing yet: their first window is small, so on an
overloaded machine they hold the others up little, while the large windows of streams that ran dry
would hold them up much. Then go streams that ran dry, then those that will soon, then the others.
Who has been given no sound for long goes with the newcomers: however many of them come, nobody is
passed over for ever. How long ago a listener ran dry does not count: on a machine that is asked for
a little too much that grows without end, though every stream moves.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Rows at least this full share a batch; below, padding costs more than a second call.
_MIN_FILL = 0.75
# Seconds since a stream's last sound after which newcomers go no longer before it; callers give a
# vocoder up that says nothing for twenty.
_LONG_WAIT_S = 10.0


def choose(
    ready: Sequence[T],
    last_sound: Callable[[T], float | None],
    deadline: Callable[[T], float],
    length: Callable[[T], int],
    now: float,
    reserve: float,
    most: int,
) -> list[T]:
    """The windows to advance now, most urgent first.

    Args:
        ready: windows between noise and mel.
        last_sound: when the listener of a window was last given sound, seconds on the clock of
            `now`; None when never.
        deadline: when the listener of a window runs dry, seconds on the clock of `now`.
        length: frames of a window.
        now: current time.
        reserve: a window is urgent from this long before its deadline, seconds.
        most: frames in all at most, however the first window is always chosen. It bounds how long
            a step lasts, and so how long a newcomer waits for the one under way.
    """
    ordered = sorted(ready, key=deadline)
    urgent = [item for item in ordered if deadline(item) - reserve <= now]
    silent = [item for item in urgent if deadline(item) <= now]
    given = [last_sound(item) for item in silent]
    if None in given:
        silent = [
            item
            for item, last in zip(silent, given, strict=True)
            if last is None or now - last > _LONG_WAIT_S
        ]
    chosen: list[T] = []
    frames = 0
    for item in silent or urgent or ordered:
        frames += length(item)
        if chosen and frames > most:
            break
        chosen.append(item)
    return chosen


def by_length(items: Sequence[T], length: Callable[[T], int]) -> list[list[T]]:
    """Group items so that padding each group to its longest wastes at most a quarter of a row."""
    groups: list[list[T]] = []
    for item in sorted(items, key=length, reverse=True):
        if groups and length(item) >= _MIN_FILL * length(groups[-1][0]):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups
