"""A token bucket on any clock, kept as Redis keeps it: by the time at which it is full again.

Contract: pure, the time is an argument in seconds. What is taken in any span of time, beyond debts
that were taken by force, never exceeds what the bucket held at its start and what came back
meanwhile. A clock that jumps back makes nothing come back twice.
"""

import math

_TOLERANCE = 1e-9


class Bucket:
    """Begins full."""

    def __init__(self, refill: float, capacity: float) -> None:
        """`refill` a second, `capacity` when full."""
        self._refill = refill
        self._capacity = capacity
        self._full_at = -math.inf

    def level(self, now: float) -> float:
        """What it holds; below zero it is in debt."""
        return self._capacity - max(0.0, self._full_at - now) * self._refill

    def wait(self, amount: float, now: float) -> float | None:
        """Seconds until it holds `amount`; 0 for at once, None for never."""
        short = amount - self.level(now)
        if short <= _TOLERANCE:
            return 0.0
        return None if amount > self._capacity else short / self._refill

    def take(self, amount: float, now: float) -> None:
        """Takes an amount, also one that is not there; below zero gives it back."""
        self._full_at = max(self._full_at, now) + amount / self._refill

    def set_level(self, level: float, now: float) -> None:
        """Goes by what another clock has counted."""
        self._full_at = now + (self._capacity - level) / self._refill
