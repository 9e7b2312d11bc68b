from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step1.engine.contract import GenerateRequest
from step1.engine.scheduler import Scheduler, Sequence

pytestmark = pytest.mark.unit


def sequence(length, *, prefill_only=False):
    ids = tuple(range(length))
    return Sequence(GenerateRequest("r", ids), prefill_only, Random(0), list(ids), 0.0)


def run_step(scheduler):
    """One step of an engine that always generates the token 0."""
    work = scheduler.plan()
    for item in work:
        needs = item.needs_logits
        item.sequence.computed += item.length
        if needs:
            item.sequence.tokens.append(0)
    return work


def test_replies_go_first_and_prompts_share_the_budget_by_age():
    scheduler = Scheduler(max_batch=4, prefill_chunk=10)
    short, long, late = sequence(4), sequence(25), sequence(5)
    for item in (short, long, late):
        scheduler.add(item)
    scheduler.admit()
    steps = [[(w.sequence, w.length) for w in run_step(scheduler)] for _ in range(4)]
    assert steps == [
        [(short, 4), (long, 6)],
        [(short, 1), (long, 10)],
        [(short, 1), (long, 9), (late, 1)],
        [(short, 1), (long, 1), (late, 4)],
    ]


def test_a_prefill_asks_for_no_logits():
    scheduler = Scheduler(max_batch=1, prefill_chunk=10)
    scheduler.add(sequence(4, prefill_only=True))
    scheduler.admit()
    (work,) = run_step(scheduler)
    assert not work.needs_logits
    assert scheduler.plan() == []


def test_the_lowest_free_slot_is_taken():
    scheduler = Scheduler(max_batch=3, prefill_chunk=10)
    items = [sequence(2) for _ in range(5)]
    for item in items:
        scheduler.add(item)
    assert [s.slot for s in scheduler.admit()] == [0, 1, 2]
    assert scheduler.admit() == []
    scheduler.remove(items[2])
    scheduler.remove(items[0])
    assert [s.slot for s in scheduler.admit()] == [0, 2]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), min_size=1, max_size=25))
def test_no_slot_is_shared_and_every_sequence_ends(arrivals):
    scheduler = Scheduler(max_batch=3, prefill_chunk=8)
    pending = [(sequence(length), steps) for length, steps in arrivals]
    for item, _ in pending:
        scheduler.add(item)
    left = {id(item): steps for item, steps in pending}
    for _ in range(1000):
        scheduler.admit()
        slots = [item.slot for item in scheduler.running]
        assert len(set(slots)) == len(slots) <= 3
        if not scheduler.has_work:
            break
        run_step(scheduler)
        for item in list(scheduler.running):
            if item.generated > left[id(item)]:
                assert scheduler.remove(item)
    assert not scheduler.has_work
    assert scheduler.remove(pending[0][0]) is False
