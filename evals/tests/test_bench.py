"""Arithmetic of the benchmarks, and that each of them runs under its name."""

from collections.abc import Awaitable, Callable

import pytest
from parley_evals.bench.__main__ import BENCHES, main, table
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, in_turns, median

pytestmark = pytest.mark.unit


def test_a_ratio_is_the_median_of_its_rounds_not_of_its_sides() -> None:
    """The third round met a busy machine on both sides."""
    many = [Cost(4, 2), Cost(6, 3), Cost(400, 400)]
    one = [Cost(2, 1), Cost(2, 1), Cost(200, 200)]
    assert Ratio.of(many, one) == Ratio(cpu=2, wall=2, rounds=3)
    assert median(many) == Cost(6, 3)


def test_rounds_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError):
        Ratio.of([Cost(1, 1)], [])


async def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    ran: list[str] = []

    def side(name: str) -> Callable[[], Awaitable[Cost]]:
        async def run() -> Cost:
            ran.append(name)
            return Cost(len(ran), len(ran))

        return run

    first, second = await in_turns(2, side("a"), side("b"))
    assert "".join(ran[2:]) == "abba"
    assert [cost.cpu for cost in first] == [3, 6]
    assert [cost.cpu for cost in second] == [4, 5]


@pytest.mark.parametrize(
    ("target", "reached", "met"),
    [
        (Target(Bound.AT_LEAST, 3), 3.0, True),
        (Target(Bound.AT_LEAST, 3), 2.99, False),
        (Target(Bound.AT_MOST, 1.5), 1.5, True),
        (Target(Bound.AT_MOST, 1.5), 1.51, False),
        (Target(Bound.AT_MOST, 1.5), float("nan"), False),
    ],
)
def test_a_target_is_met_by_cpu_time(target: Target, reached: float, met: bool) -> None:
    figure = Figure("name", Ratio(cpu=reached, wall=0, rounds=1), target)
    assert figure.missed is not met
    assert table([figure]).row_count == 1


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    assert "prefill" in BENCHES
    with pytest.raises(SystemExit) as exit_info:
        main(["no-such-bench"])
    assert exit_info.value.code == 2
    with pytest.raises(SystemExit) as exit_info:
        main(["prefill", "--threads", "0"])
    assert exit_info.value.code == 2
