"""Sound laid out on a clock that counts samples.

Contract: what is written follows what was written before, or takes the place of its end; where
nothing was written there is silence. Writing costs what is written, however much is kept: room
grows by doubling, and what is forgotten makes room. Mono float32.
"""

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_ROOM = 4_096


class Track:
    """The sound of one clock."""

    def __init__(self) -> None:
        """Begins empty, at sample 0."""
        self._room: Samples = np.zeros(_ROOM, np.float32)
        self._begin = 0
        self._first = self._last = 0

    @property
    def end(self) -> int:
        """The sample behind the last that was written."""
        return self._begin + self._last - self._first

    def write(self, begin: int, samples: Samples) -> None:
        """Puts samples at `begin`; what lay from there on is gone."""
        if begin <= self._begin or self._first == self._last:
            self._begin, self._first, self._last = begin, 0, 0
        gap = begin - self.end
        if gap < 0:
            self._last += gap
        self._make_room(max(0, gap) + len(samples))
        if gap > 0:
            self._room[self._last : self._last + gap] = 0
            self._last += gap
        self._room[self._last : self._last + len(samples)] = samples
        self._last += len(samples)

    def forget(self, before: int) -> None:
        """Keeps nothing from before this sample."""
        gone = min(max(0, before - self._begin), self._last - self._first)
        self._begin += gone
        self._first += gone

    def window(self, begin: int, end: int) -> Samples:
        """A copy of the sound between two samples."""
        first, last = max(begin, self._begin), min(end, self.end)
        there = self._room[
            self._first + first - self._begin : self._first + max(first, last) - self._begin
        ]
        if len(there) == end - begin:
            return there.copy()
        window = np.zeros(end - begin, np.float32)
        if len(there):
            window[first - begin : last - begin] = there
        return window

    def _make_room(self, count: int) -> None:
        if self._last + count <= len(self._room):
            return
        kept = self._last - self._first
        size = len(self._room)
        # Moving what is kept pays off only where it makes much room.
        while size < 2 * (kept + count):
            size *= 2
        while size > _ROOM and size > 8 * (kept + count):
            size //= 2
        room = np.zeros(size, np.float32) if size != len(self._room) else self._room
        room[:kept] = self._room[self._first : self._last].copy()
        self._room, self._first, self._last = room, 0, kept
