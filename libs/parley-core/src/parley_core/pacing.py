"""The clock of simulated engines: a time to the first output, a speed after it, jitter around both.

Contract: waits are planned from the moment the work began, not from the last wait, so a timer that
is late does not make the engine slower than it says. A seed fixes every draw. Not for real engines,
and not for what they put out.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pydantic import Field

from parley_core.settings import SettingsSection


class PaceSettings(SettingsSection):
    """How long a simulated engine takes."""

    ttft: float = Field(0.0, ge=0, description="Seconds to the first output of a piece of work.")
    speed: float = Field(0.0, ge=0, description="Units a second after that; 0: without limit.")
    jitter: float = Field(
        0.0, ge=0, le=1, description="Each wait is scaled by a draw from 1 - jitter to 1 + jitter."
    )
    seed: int = Field(0, ge=0, description="Of outputs and jitter.")

    def pace(self) -> "Pace":
        """As engines take it."""
        return Pace(self.ttft, self.speed, self.jitter)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first output, units a second after it (0: without limit), relative jitter."""

    ttft: float = 0.0
    speed: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.ttft < 0:
            raise ValueError("ttft must not be negative")
        if self.speed < 0:
            raise ValueError("speed must not be negative")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be between 0 and 1")

    def start(self, random: Random, clock: Callable[[], float] = time.monotonic) -> "Timing":
        """Begins a piece of work now."""
        return Timing(self, random, clock)


class Timing:
    """The waits of one piece of work."""

    def __init__(self, pace: Pace, random: Random, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._random = random
        self._clock = clock
        self._due = clock()

    def first(self, extra: float = 0.0) -> float:
        """Plans the first output, `extra` seconds of work before it; returns when it is due."""
        return self._plan(self._pace.ttft + extra)

    def next(self, units: float = 1.0) -> float:
        """Plans `units` more; returns when they are due."""
        return self._plan(units / self._pace.speed if self._pace.speed else 0.0)

    def resume(self) -> None:
        """Takes note that the work stood still until now."""
        self._due = max(self._due, self._clock())

    @property
    def left(self) -> float:
        """Seconds until what was planned is due; 0 when it is."""
        return max(0.0, self._due - self._clock())

    async def wait(self) -> None:
        """Waits until what was planned is due; lets others run even where nothing is to wait."""
        await asyncio.sleep(self.left)

    def _plan(self, seconds: float) -> float:
        if seconds and self._pace.jitter:
            seconds *= 1 + self._pace.jitter * self._random.uniform(-1, 1)
        self._due += seconds
        return self._due
