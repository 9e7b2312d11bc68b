"""Arithmetic of buckets and accounts on a clock of the test's own."""

import itertools
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from parley_gateway.admission.account import Account
from parley_gateway.admission.bucket import Bucket
from parley_gateway.admission.estimate import expected_seconds
from parley_gateway.admission.settings import AdmissionSettings, TenantLimits
from parley_gateway.stages.quota import Amount, Place, Quota

pytestmark = pytest.mark.unit

rates = st.floats(1e-3, 1e3)
sizes = st.floats(1, 1e4)
steps = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), max_size=60)


@given(refill=rates, capacity=sizes, asked=steps)
def test_what_is_let_in_never_exceeds_what_was_there_and_what_came_back(refill, capacity, asked):
    bucket, now, taken = Bucket(refill, capacity), 0.0, 0.0
    for pause, amount in asked:
        now += pause
        if bucket.wait(amount, now) == 0.0:
            bucket.take(amount, now)
            taken += amount
        assert taken <= (capacity + refill * now) * (1 + 1e-9) + 1e-6


@given(refill=rates, capacity=sizes, spent=st.floats(0, 1e4), share=st.floats(0.01, 1))
def test_after_the_wait_that_is_told_there_is_enough_and_just_before_there_is_not(
    refill, capacity, spent, share
):
    bucket, wanted = Bucket(refill, capacity), capacity * share
    bucket.take(spent, 0.0)
    wait = bucket.wait(wanted, 0.0)
    assert bucket.level(wait) >= wanted - 1e-6 * max(1.0, capacity)
    if wait > 1.0:
        assert bucket.wait(wanted, wait * 0.9) > 0.0


@given(jumps=st.lists(st.floats(-100, 100), max_size=40))
def test_a_clock_that_jumps_back_brings_nothing_back_twice(jumps):
    bucket, now, taken, seen = Bucket(1.0, 5.0), 0.0, 0, [0.0]
    for jump in jumps:
        now += jump
        seen.append(now)
        while bucket.wait(1.0, now) == 0.0:
            bucket.take(1.0, now)
            taken += 1
    assert taken <= 5 + max(seen) - min(seen) + 1e-6


def test_a_debt_is_paid_before_anything_is_let_in():
    bucket = Bucket(2.0, 10.0)
    bucket.take(30.0, 0.0)
    assert bucket.level(0.0) == -20.0
    assert bucket.wait(1.0, 0.0) == pytest.approx(10.5)
    assert bucket.wait(11.0, 0.0) is None
    bucket.take(-1000.0, 0.0)
    assert bucket.level(0.0) == 10.0


def account_of(limits, slot_ttl):
    return Account(limits, slot_ttl, itertools.count(1))


def limits(**fields):
    return AdmissionSettings(default=fields).limits("any")


def bucket_of(per_second, burst):
    return {"per_minute": per_second * 60, "burst": burst}


def test_an_account_goes_by_the_shared_count_less_what_it_has_not_told():
    account = account_of(limits(audio_out=bucket_of(1, 100)), slot_ttl=15)
    account.use(Amount(audio_out=30), 0.0)
    report = account.report()
    account.use(Amount(audio_out=5), 0.0)
    account.reported(Amount(audio_out=40), 0.0)
    assert report.used == Amount(audio_out=30)
    assert account.buckets[Quota.AUDIO_OUT].level(0.0) == 35
    assert account.report().used == Amount(audio_out=5)


def test_a_report_is_the_same_until_it_was_heard():
    account = account_of(limits(audio_in=bucket_of(1, 10)), slot_ttl=15)
    first, second = Place("a", "1"), Place("b", "2")
    account.opened(first)
    account.use(Amount(audio_in=1), 0.0)
    account.closed(first)
    told = account.report()
    account.use(Amount(audio_in=2), 0.0)
    account.opened(second)
    account.closed(second)
    again = account.report()
    assert (again.serial, again.used, again.ended) == (told.serial, told.used, told.ended)
    account.reported(Amount(audio_in=5), 0.0)
    rest = account.report()
    assert (rest.serial, rest.used, rest.ended) == (2, Amount(audio_in=2), (second,))
    account.reported(Amount(audio_in=5), 0.0)
    assert account.idle


def test_a_gateway_alone_decides_by_the_same_rules():
    account = account_of(
        limits(session_starts=bucket_of(0.1, 2), audio_in=bucket_of(1, 10), max_sessions=1), 15
    )
    start = Amount(session_starts=1)
    assert account.decide(start, Amount(), 0.0) is None
    account.use(start, 0.0)
    account.opened(Place("a", "h"))
    refusal = account.decide(start, Amount(), 0.0)
    assert (refusal.quota, refusal.wait) == (Quota.SESSIONS, 15)
    account.closed(Place("a", "h"))
    account.use(start, 0.0)
    refusal = account.decide(start, Amount(audio_in=5), 0.0)
    assert refusal.quota is Quota.SESSION_STARTS
    assert refusal.wait == pytest.approx(10)
    assert account.decide(start, Amount(audio_in=11), 0.0).wait is None


def test_audio_is_used_up_at_nothing_and_worth_coming_back_for_at_the_least():
    account = account_of(limits(audio_in=bucket_of(2, 3), audio_out=bucket_of(1, 60)), 15)
    assert account.dry(0.0, 5.0) is None
    account.use(Amount(audio_in=3), 0.0)
    refusal = account.dry(0.0, 5.0)
    assert refusal.quota is Quota.AUDIO_IN
    assert refusal.wait == pytest.approx(1.5), "three are all that it can hold"


def test_a_tenants_own_section_replaces_the_default_key_by_key():
    settings = AdmissionSettings(
        default={"max_sessions": 2, "audio_in": bucket_of(1, 10), "cloning": False},
        tenants={"acme": {"max_sessions": None, "weight": 3}, "dull": {}},
    )
    acme = settings.limits("acme")
    assert (acme.max_sessions, acme.weight, acme.cloning) == (None, 3, False)
    assert acme.audio_in == settings.default.audio_in
    assert settings.limits("dull") == settings.limits("nobody") == settings.default


def test_the_settings_that_the_manual_shows_are_taken():
    manual = Path(__file__).parents[3] / "docs" / "admission.md"
    shown = manual.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    settings = AdmissionSettings(**yaml.safe_load(shown)["admission"])
    acme = settings.limits("acme")
    assert (acme.max_sessions, acme.session_starts, acme.cloning) == (200, None, True)
    assert acme.audio_in == settings.default.audio_in


def test_nothing_is_limited_unless_it_is_said():
    settings = AdmissionSettings()
    assert not settings.limits("any").counted
    assert settings.max_sessions is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"default": {"colour": 1}},
        {"tenants": {"acme": {"max_session": 1}}},
        {"tenants": {"acme": {"audio_in": {"per_minute": 1}}}},
        {"tenants": {"acme": {"audio_in": {"per_minute": 0, "burst": 1}}}},
        {"tenants": {"acme": {"session_starts": {"per_minute": 1, "burst": 0.5}}}},
        {"tenants": {"": {}}},
        {"default": {"weight": 0}},
        {"max_sessions": 0},
        {"shed_queue_s": 2, "refuse_queue_s": 1},
        {"slot_ttl_s": 1, "report_interval_s": 1},
        {"tenant": {}},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="validation error"):
        AdmissionSettings(**wrong)


def test_a_text_is_taken_for_about_as_long_as_it_sounds():
    assert 2.0 < expected_seconds("The weather is fine today, let us go out.") < 4.0
    assert 2.0 < expected_seconds("今天天气很好我们出去走走吧") < 4.0
    assert expected_seconds("") == 0.0
    assert math.isfinite(expected_seconds("a" * 20_000))


def test_limits_without_a_number_are_not_counted():
    assert not TenantLimits(cloning=False, weight=5).counted
    assert TenantLimits(max_sessions=0).counted
