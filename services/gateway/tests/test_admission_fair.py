"""Who gives way when places are short."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_gateway.admission.fair import Floor
from parley_gateway.stages.load import QueueLoad

pytestmark = pytest.mark.unit


def floor(capacity, *, spare=0.1, weights=None):
    weights = weights or {}
    return Floor(capacity, spare, lambda tenant: weights.get(tenant, 1.0))


def fill(places, tenant, tries=100, now=0.0):
    """Lets in as many as there is room for."""
    count = 0
    while count < tries and places.has_place(tenant, now):
        places.enter(tenant, now)
        count += 1
    return count


def test_one_tenant_alone_takes_all_but_what_is_kept_for_newcomers():
    places = floor(20)
    assert fill(places, "noisy") == 18
    assert fill(places, "quiet") == 2
    assert not places.has_place("third", 0.0)


def test_a_small_gateway_keeps_nothing_back_and_makes_room_when_asked():
    places = floor(4)
    assert fill(places, "noisy") == 4
    assert not places.has_place("quiet", 0.0)
    places.want("quiet", 0.0)
    assert places.furthest_over("quiet") == "noisy"
    places.leave("noisy", 0.0, 1.0)
    assert not places.has_place("noisy", 1.0), "the place is kept for who was refused"
    assert places.has_place("quiet", 1.0)


def test_places_that_nobody_came_for_are_anybodys_again():
    places = floor(4)
    fill(places, "noisy")
    places.want("quiet", 0.0)
    places.leave("noisy", 0.0, 1.0)
    assert places.has_place("noisy", 60.0)


def test_a_tenant_over_its_share_waits_while_one_under_it_is_let_in():
    places = floor(30)
    fill(places, "a", 15)
    fill(places, "b", 12)
    assert not places.has_place("a", 0.0)
    assert not places.has_place("b", 0.0)
    assert places.has_place("c", 0.0)


def test_weights_are_shares():
    places = floor(40, weights={"big": 6.0, "small": 2.0})
    fill(places, "big", 20)
    fill(places, "small", 6)
    assert not places.over_share("big", 40)
    assert places.over_share("big", 30)
    fill(places, "small", 4)
    assert places.over_share("small", 40)


def test_who_holds_nothing_is_never_over_its_share():
    places = floor(None)
    assert not places.over_share("new", 1)
    places.enter("new", 0.0)
    assert places.over_share("new", 2)


def test_nobody_gives_way_for_one_that_holds_as_much():
    places = floor(4)
    for tenant in ("a", "a", "b", "b"):
        places.enter(tenant, 0.0)
    assert places.furthest_over("a") is None
    assert places.furthest_over("c") in ("a", "b")
    places = floor(2)
    for tenant in ("a", "b"):
        places.enter(tenant, 0.0)
    assert places.furthest_over("c") is None, "one is nobody's too many"


def test_the_wait_follows_how_long_sessions_last():
    places = floor(10)
    for _ in range(10):
        places.enter("a", 0.0)
    assert places.expected_wait(50.0) == pytest.approx(5.0)
    places.leave("a", 0.0, 90.0)
    assert places.expected_wait(90.0) == pytest.approx(10.0)
    assert floor(1).expected_wait(0.0) > 0


moves = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200)


@given(capacity=st.integers(1, 12), steps=moves)
def test_the_capacity_holds_and_a_starved_tenant_gets_in_as_places_become_free(capacity, steps):
    places, held, now = floor(capacity), Counter(), 0.0
    for tenant, comes in steps:
        now += 0.1
        if comes and places.has_place(tenant, now):
            places.enter(tenant, now)
            held[tenant] += 1
        elif not comes and held[tenant]:
            places.leave(tenant, now - 0.1, now)
            held[tenant] -= 1
        assert places.count == held.total() <= capacity
    # A newcomer asks; whoever is furthest over leaves; the noisy ask at every step as well.
    if capacity > 1 and not places.has_place("new", now):
        places.want("new", now)
        most = places.furthest_over("new")
        if most:
            places.leave(most, now, now)
            while places.has_place(most, now):
                places.enter(most, now)
            assert places.has_place("new", now)


def test_a_queue_is_said_to_be_shorter_when_it_is():
    load = QueueLoad()
    load.refused(8.0, 0.0)
    again = load.falls_below(2.0, 0.0)
    assert load.wait(again) == pytest.approx(2.0)
    assert load.wait(again - 0.5) > 2.0
    assert load.falls_below(9.0, 0.0) == 0.0
