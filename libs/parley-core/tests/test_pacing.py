import asyncio
from random import Random

import pytest
from parley_core.pacing import Pace, PaceSettings

pytestmark = pytest.mark.unit


def test_work_is_due_by_first_output_and_speed_however_late_the_timers_are():
    now = 10.0
    timing = Pace(ttft=0.5, speed=4).start(Random(1), lambda: now)
    assert timing.first() == 10.5
    now = 11.9
    assert timing.next() == 10.75
    assert timing.next(2) == 11.25
    timing.resume()
    assert timing.next() == 12.15


def test_speed_0_is_without_limit_and_extra_work_delays_the_first_output():
    timing = Pace(ttft=0.5).start(Random(1), lambda: 0.0)
    assert timing.first(0.25) == 0.75
    assert timing.next(1e9) == 0.75


def test_jitter_follows_the_seed_and_stays_in_its_bounds():
    def dues(seed):
        timing = Pace(speed=1, jitter=0.5).start(Random(seed), lambda: 0.0)
        return [timing.next() for _ in range(50)]

    first = dues(1)
    waits = [after - before for before, after in zip([0.0, *first], first, strict=False)]
    assert first == dues(1) != dues(2)
    assert all(0.5 <= wait <= 1.5 for wait in waits)
    assert max(waits) - min(waits) > 0.5


async def test_others_run_where_nothing_is_to_wait():
    ran = []
    other = asyncio.create_task(asyncio.sleep(0, ran.append(1)))
    await PaceSettings().pace().start(Random(1)).wait()
    await other
    assert ran == [1]


@pytest.mark.parametrize("wrong", [{"ttft": -1}, {"speed": -1}, {"jitter": 2}])
def test_a_pace_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Pace(**wrong)
