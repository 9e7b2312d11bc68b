"""Costs, and ratios of two sides that ran in turns.

Invariant: a ratio is the median of the ratios of single rounds; the two costs of a round were taken
one right after the other.
"""

import operator
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took, in seconds; `cpu` is of all threads of this process."""

    wall: float
    cpu: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> "Cost":
        return Cost(self.wall * factor, self.cpu * factor)


class Watch:
    """Runs from where it is made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> Cost:
        """The cost so far."""
        return Cost(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def median(costs: Sequence[Cost]) -> Cost:
    """Median of each kind of time by itself."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """One side over the other.

    Attributes:
        cpu: ratio of CPU times.
        wall: ratio of wall times.
        rounds: how many rounds the medians are over.
    """

    cpu: float
    wall: float
    rounds: int

    @classmethod
    def of(cls, numerator: Sequence[Cost], denominator: Sequence[Cost]) -> Self:
        """The median of round-by-round ratios; both sequences in order of rounds."""
        pairs = list(zip(numerator, denominator, strict=True))
        return cls(
            cpu=statistics.median(top.cpu / bottom.cpu for top, bottom in pairs),
            wall=statistics.median(top.wall / bottom.wall for top, bottom in pairs),
            rounds=len(pairs),
        )


async def in_turns(
    rounds: int, *sides: Callable[[], Awaitable[Cost]], warm_up: bool = True
) -> list[list[Cost]]:
    """Runs all sides `rounds` times, each round beginning with another one.

    Args:
        rounds: measured rounds.
        sides: what to compare.
        warm_up: run one more round first and forget it.

    Returns:
        The costs of each side, in order of rounds.
    """
    costs: list[list[Cost]] = [[] for _ in sides]
    for turn in range(-1 if warm_up else 0, rounds):
        for step in range(len(sides)):
            index = (turn + step) % len(sides)
            cost = await sides[index]()
            if turn >= 0:
                costs[index].append(cost)
    return costs


class Bound(StrEnum):
    """Which way a target points."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio is to reach."""

    bound: Bound
    value: float

    def met(self, reached: float) -> bool:
        """Whether it does; NaN never does."""
        compare = operator.ge if self.bound is Bound.AT_LEAST else operator.le
        return bool(compare(reached, self.value))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        name: what was measured.
        reached: the ratio.
        target: what it is to reach; None for a figure that only explains another.
        detail: the numbers behind it.
    """

    name: str
    reached: Ratio
    target: Target | None = None
    detail: str = ""

    @property
    def missed(self) -> bool:
        """Whether a target is there and not met by the CPU ratio."""
        return self.target is not None and not self.target.met(self.reached.cpu)
