"""Quotas in a real Redis: shared, atomic, repeatable, and self-healing."""

import asyncio

import pytest
from parley.context.v1 import quota_pb2, quota_pb2_grpc
from parley_asr_context import quota_service
from parley_asr_context.quota_service import QuotaService
from parley_asr_context.quotas import (
    Amount,
    Bucket,
    Limits,
    Quota,
    Quotas,
    Report,
    Slot,
    tenant_keys,
)
from parley_asr_context.redis_store import Store
from parley_asr_context.settings import RedisSettings
from parley_core.server import Server
from parley_core.settings import ServiceSettings
from parley_core.testing import rpc_fails, serving

pytestmark = pytest.mark.contract

SLOW = 1e-3
START = Amount(session_starts=1)
NOTHING = Amount()


def starts(capacity, refill=SLOW, **more):
    return Limits(session_starts=Bucket(refill, capacity), **more)


@pytest.fixture
def quotas(store):
    return Quotas(store)


@pytest.fixture
def tenant(name):
    return name.tenant


async def admit(quotas, tenant, limits, slot, *, holder="h", take=START, need=NOTHING, ttl=60):
    place = Slot(slot, holder)
    return (await quotas.admit(tenant, limits, place, ttl=ttl, take=take, need=need))[0]


async def report(quotas, tenant, limits, serial, *, used=NOTHING, kept=(), ended=(), who="g"):
    told = Report(who, serial, used, kept=kept, ended=ended)
    return await quotas.report(tenant, limits, told, ttl=60)


async def let_pass(store, tenant, seconds):
    """Moves everything of a tenant into the past, which is what the clock of Redis would do."""
    buckets, slots, *_ = tenant_keys(tenant)
    for name, full in (await store.client.hgetall(buckets)).items():
        await store.client.hset(buckets, name, int(full) - round(seconds * 1e6))
    for slot in await store.client.zrange(slots, 0, -1):
        await store.client.zincrby(slots, -seconds * 1e6, slot)


async def test_many_that_ask_at_once_get_what_the_bucket_holds_and_no_more(
    quotas, redis_server, tenant
):
    other = Store.connect(RedisSettings(url=redis_server.url, retries=1))
    both = (quotas, Quotas(other))
    asked = [admit(both[n % 2], tenant, starts(10), f"s{n}") for n in range(100)]
    refusals = await asyncio.gather(*asked)
    await other.aclose()
    assert sum(refusal is None for refusal in refusals) == 10


async def test_the_wait_that_is_told_is_enough_and_no_longer_than_needed(quotas, store, tenant):
    limits = starts(1, refill=0.1)
    assert await admit(quotas, tenant, limits, "a") is None
    refusal = await admit(quotas, tenant, limits, "b")
    assert refusal.quota is Quota.SESSION_STARTS
    assert 9.5 < refusal.wait <= 10
    await let_pass(store, tenant, refusal.wait - 1)
    assert await admit(quotas, tenant, limits, "b") is not None
    await let_pass(store, tenant, 1)
    assert await admit(quotas, tenant, limits, "b") is None


async def test_a_refusal_takes_nothing_and_names_what_takes_longest(quotas, tenant):
    limits = Limits(Bucket(SLOW, 5), audio_in=Bucket(0.1, 10), audio_out=Bucket(0.01, 10))
    take = Amount(session_starts=1, audio_in=8)
    assert await admit(quotas, tenant, limits, "a", take=take) is None
    used = Amount(audio_out=11)
    before = await report(quotas, tenant, limits, 1, used=used)
    refusal = await admit(quotas, tenant, limits, "b", take=take, need=Amount(audio_out=1))
    assert refusal.quota is Quota.AUDIO_OUT
    assert 190 < refusal.wait <= 200
    after = await report(quotas, tenant, limits, 2)
    assert after.session_starts == pytest.approx(before.session_starts, abs=0.01)
    assert after.audio_in == pytest.approx(before.audio_in, abs=0.1)
    assert after.sessions == 1


async def test_what_is_needed_is_not_taken(quotas, tenant):
    limits = Limits(audio_out=Bucket(SLOW, 10))
    need = Amount(audio_out=10)
    assert await admit(quotas, tenant, limits, "a", take=NOTHING, need=need) is None
    assert await admit(quotas, tenant, limits, "b", take=NOTHING, need=need) is None


async def test_more_than_the_bucket_ever_holds_is_refused_without_a_time(quotas, tenant):
    limits = Limits(audio_in=Bucket(1, 10))
    refusal = await admit(quotas, tenant, limits, "a", take=Amount(audio_in=11))
    assert (refusal.quota, refusal.wait) == (Quota.AUDIO_IN, None)


async def test_asking_again_after_a_lost_answer_takes_once(quotas, tenant):
    limits = starts(2, max_sessions=1)
    assert await admit(quotas, tenant, limits, "a") is None
    assert await admit(quotas, tenant, limits, "a") is None
    assert (await report(quotas, tenant, limits, 1)).session_starts == pytest.approx(1, abs=0.01)


async def test_a_report_that_is_repeated_counts_once(quotas, tenant):
    limits = Limits(audio_out=Bucket(SLOW, 10))
    used = Amount(audio_out=4)
    for who in ("g1", "g1", "g2"):
        told = await report(quotas, tenant, limits, 1, used=used, who=who)
    assert told.audio_out == pytest.approx(2, abs=0.01)


async def test_what_was_used_is_taken_even_into_debt_and_can_be_given_back(quotas, tenant):
    limits = Limits(audio_out=Bucket(SLOW, 10))
    debt = await report(quotas, tenant, limits, 1, used=Amount(audio_out=25))
    assert debt.audio_out == pytest.approx(-15, abs=0.01)
    back = await report(quotas, tenant, limits, 2, used=Amount(audio_out=-1000))
    assert back.audio_out == pytest.approx(10)


async def test_slots_are_bounded_and_come_back_when_their_gateway_says_nothing(
    quotas, store, tenant
):
    limits = Limits(max_sessions=2)
    assert await admit(quotas, tenant, limits, "a", ttl=10) is None
    assert await admit(quotas, tenant, limits, "b", ttl=20) is None
    refusal = await admit(quotas, tenant, limits, "c")
    assert refusal.quota is Quota.SESSIONS
    assert 9 < refusal.wait <= 10
    await let_pass(store, tenant, refusal.wait)
    assert await admit(quotas, tenant, limits, "c") is None
    assert await admit(quotas, tenant, limits, "d") is not None


async def test_a_slot_that_is_reported_stays_and_one_that_ended_is_free(quotas, store, tenant):
    limits, place = Limits(max_sessions=1), Slot("a", "h")
    await admit(quotas, tenant, limits, "a", ttl=10)
    await report(quotas, tenant, limits, 1, kept=[place])
    await let_pass(store, tenant, 30)
    assert await admit(quotas, tenant, limits, "b") is not None
    assert (await report(quotas, tenant, limits, 2, ended=[place])).sessions == 0
    assert await admit(quotas, tenant, limits, "b") is None


async def test_a_session_that_resumes_elsewhere_counts_once_and_is_its_new_holders(quotas, tenant):
    limits = Limits(max_sessions=1)
    await admit(quotas, tenant, limits, "a", holder="old")
    assert await admit(quotas, tenant, limits, "a", holder="new") is None
    told = await report(quotas, tenant, limits, 1, ended=[Slot("a", "old")])
    assert told.sessions == 1
    assert await admit(quotas, tenant, limits, "b") is not None


async def test_slots_that_redis_lost_are_taken_back_by_their_gateways(quotas, store, tenant):
    limits = Limits(max_sessions=1)
    await admit(quotas, tenant, limits, "a")
    await store.client.flushall()
    told = await report(quotas, tenant, limits, 1, kept=[Slot("a", "h")])
    assert told.sessions == 1


@pytest.mark.parametrize("odd", ["auth0|a{b}c", "租户", "a/b:c", "}{"])
async def test_tenants_of_any_name_have_quotas_of_their_own(quotas, odd):
    assert await admit(quotas, odd, starts(1), "a") is None
    assert await admit(quotas, odd, starts(1), "b") is not None
    assert await admit(quotas, odd + "x", starts(1), "a") is None


@pytest.fixture
async def stub(store):
    server = Server(ServiceSettings(), name="asr-context")
    register = quota_pb2_grpc.add_QuotaServiceServicer_to_server
    server.add(register, QuotaService(Quotas(store)), quota_service.FULL_NAME)
    async with serving(server) as channel:
        yield quota_pb2_grpc.QuotaServiceStub(channel)


def asking(**fields):
    request = quota_pb2.AdmitSessionRequest(
        tenant="acme",
        slot={"slot": "a", "holder": "h"},
        ttl={"seconds": 5},
        take={"session_starts": 1},
    )
    request.limits.session_starts.refill_per_second = 0.1
    request.limits.session_starts.capacity = 1
    for path, value in fields.items():
        target = request
        *parents, last = path.split("__")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return request


async def test_the_edge_tells_refusal_balance_and_count(stub):
    first = await stub.AdmitSession(asking())
    assert not first.HasField("refusal")
    assert first.session_count == 1
    second = await stub.AdmitSession(asking(slot__slot="b"))
    assert second.refusal.quota == quota_pb2.QUOTA_KIND_SESSION_STARTS
    assert 9 < second.refusal.retry_delay.ToMilliseconds() / 1000 <= 10
    told = await stub.ReportUsage(
        quota_pb2.ReportUsageRequest(
            tenant="acme",
            limits=asking().limits,
            reporter="g",
            serial=1,
            ttl={"seconds": 5},
            ended=[{"slot": "a", "holder": "h"}],
        )
    )
    assert told.session_count == 0
    assert told.balance.session_starts == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("tenant", "", "NAME_MALFORMED"),
        ("tenant", "a" * 600, "NAME_MALFORMED"),
        ("slot__slot", "", "NAME_MALFORMED"),
        ("ttl__seconds", 0, "DURATION_NOT_POSITIVE"),
        ("limits__max_sessions", -1, "LIMIT_INVALID"),
        ("limits__session_starts__capacity", 0, "LIMIT_INVALID"),
        ("limits__session_starts__refill_per_second", float("nan"), "LIMIT_INVALID"),
        ("limits__audio_in__refill_per_second", 1.0, "LIMIT_INVALID"),
        ("take__session_starts", float("inf"), "AMOUNT_INVALID"),
        ("take__session_starts", float("nan"), "AMOUNT_INVALID"),
    ],
)
async def test_what_would_make_a_bucket_meaningless_is_refused(stub, path, value, reason):
    async with rpc_fails(reason):
        await stub.AdmitSession(asking(**{path: value}))
    async with rpc_fails("REPORT_SERIAL_MISSING"):
        await stub.ReportUsage(quota_pb2.ReportUsageRequest(tenant="acme", reporter="g"))
    assert not (await stub.AdmitSession(asking())).HasField("refusal")


async def test_a_clock_that_is_set_back_keeps_no_bucket_empty_and_no_place_taken(
    quotas, store, tenant
):
    limits = starts(2, refill=0.1, max_sessions=2)
    assert await admit(quotas, tenant, limits, "a", ttl=60) is None
    assert await admit(quotas, tenant, limits, "b", ttl=60) is None
    await let_pass(store, tenant, -3600)
    refusal = await admit(quotas, tenant, limits, "c")
    assert refusal.quota is Quota.SESSIONS
    assert 50 < refusal.wait <= 60
    standing = await report(quotas, tenant, limits, 1, ended=[Slot("a", "h")])
    assert standing.session_starts == pytest.approx(0, abs=0.1)
    refusal = await admit(quotas, tenant, limits, "c")
    assert refusal.quota is Quota.SESSION_STARTS
    assert refusal.wait <= 10
