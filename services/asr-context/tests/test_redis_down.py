import asyncio

import numpy as np
import pytest
from context_fakes import Counting
from context_redis import RedisServer, eventually
from parley_asr_context.history import History
from parley_asr_context.keys import SessionName
from parley_asr_context.leases import Leases
from parley_asr_context.quotas import Amount, Limits, Quotas, Slot
from parley_asr_context.redis_store import Store
from parley_asr_context.sessions import Sessions
from parley_asr_context.settings import RedisSettings
from parley_asr_context.token_counter import ByteCounter
from parley_asr_context.transcription_queue import TranscriptionQueue
from parley_asr_context.turns import Draft, TranscriptState, Turns
from parley_asr_context.worker import TranscriptionWorker, WorkerConfig
from parley_core.errors import Unavailable

pytestmark = pytest.mark.contract

NAME = SessionName("tenant", "session")
PCM = np.arange(1600, dtype=np.int16)


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_no_acknowledged_turn_is_lost_when_redis_is_killed_and_comes_back(server):
    store = Store.connect(RedisSettings(url=server.url, retries=1, timeout_s=1))
    assert await store.check(), "the fixture runs with the append-only file on"
    turns, queue = Turns(store, max_turns=999, audio_ttl=60), TranscriptionQueue(store)
    history = History(turns, queue, ByteCounter(), requeue_after=60)
    await Sessions(store).create(NAME, ttl=60)
    acknowledged = []
    for i in range(30):
        await history.append(NAME, Draft(f"t{i}", user_audio=(i,), pcm=PCM[: 100 + i]))
        acknowledged.append(f"t{i}")

    server.kill()
    with pytest.raises(Unavailable) as down:
        await history.append(NAME, Draft("lost"))
    assert (down.value.reason, down.value.retry_after) == ("REDIS_UNAVAILABLE", 1.0)
    worker = TranscriptionWorker(
        "w", queue, turns, Counting(), WorkerConfig(min_idle=0.05, block=0.02, backoff=0.1)
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())
        await asyncio.to_thread(server.start)

        async def settled():
            found = await turns.page(NAME, limit=999)
            done = all(turn.transcript is TranscriptState.DONE for turn in found)
            return found if done else None

        found = await eventually(settled)
        task.cancel()
    assert [turn.turn_id for turn in found] == acknowledged
    assert [turn.user_text for turn in found] == [f"{100 + i} samples" for i in range(30)]
    await store.aclose()


async def test_an_absent_redis_is_told_at_once(tmp_path):
    store = Store.connect(
        RedisSettings(url=f"unix://{tmp_path}/nobody.sock", retries=1, timeout_s=1)
    )
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await store.check()
        with pytest.raises(Unavailable):
            await Sessions(store).get(NAME)
    await store.aclose()


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_burst_of_more_calls_than_connections_is_no_lost_redis(server, cluster):
    store = Store.connect(RedisSettings(url=server.url, cluster=cluster, max_connections=4))
    sessions = Sessions(store)
    await sessions.create(NAME, ttl=60)
    found = await asyncio.gather(*(sessions.get(NAME) for _ in range(200)))
    assert len(found) == 200
    await store.aclose()


async def test_who_waits_for_a_connection_waits_no_longer_than_for_a_reply(server):
    store = Store.connect(RedisSettings(url=server.url, max_connections=4, timeout_s=0.2))
    never = asyncio.Event()
    store.client.connection_pool.get_connection = never.wait
    calls = [asyncio.create_task(store.check()) for _ in range(5)]
    async with asyncio.timeout(5):
        (late,), held = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(late.exception(), Unavailable)
    for call in held:
        call.cancel()
    await asyncio.wait(held)
    await store.aclose()


async def test_a_cancelled_call_stays_cancelled(server):
    """redis-py on Python 3.11 can swallow a cancellation; the store hands it on."""
    store = Store.connect(RedisSettings(url=server.url))
    await Sessions(store).create(NAME, ttl=60)

    async def forever():
        while True:
            await Sessions(store).get(NAME)

    for i in range(60):
        task = asyncio.create_task(forever())
        for _ in range(i):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, "the cancellation was swallowed"
        assert task.cancelled()
    await store.aclose()


@pytest.fixture
async def full(server):
    """A store with a session, on a Redis that is full once `fill` was called."""
    store = Store.connect(RedisSettings(url=server.url, retries=1, timeout_s=1))
    await Sessions(store).create(NAME, ttl=60)
    yield store
    await store.aclose()


async def fill(store):
    await store.client.config_set("maxmemory", 1)


async def test_a_full_redis_refuses_every_write_with_a_reason_and_is_still_read(full):
    turns, queue, leases = (
        Turns(full, max_turns=9, audio_ttl=60),
        TranscriptionQueue(full),
        Leases(full),
    )
    lease = await leases.acquire(NAME, "a", ttl=10)
    _, job = await turns.append(NAME, Draft("t", pcm=PCM))
    await fill(full)
    for write in (
        Sessions(full).create(SessionName("tenant", "other"), ttl=60),
        Sessions(full).update(NAME, config=b"x"),
        turns.append(NAME, Draft("u", user_text="x")),
        leases.renew(NAME, lease.fence, ttl=10),
        queue.put(job),
        queue.take("w", block=0.01),  # without a group, which nobody can make now
        queue.claim("w", min_idle=0.01),
        Quotas(full).admit("tenant", Limits(), Slot("s", "h"), ttl=1, take=Amount(), need=Amount()),
    ):
        with pytest.raises(Unavailable) as refused:
            await write
        assert refused.value.reason == "REDIS_REFUSES_WRITES"
        assert refused.value.retry_after
    assert [turn.turn_id for turn in await turns.page(NAME, limit=9)] == ["t"]


async def test_audio_in_a_full_redis_gets_its_text_and_leaves(full):
    turns, queue = Turns(full, max_turns=9, audio_ttl=60), TranscriptionQueue(full)
    assert await queue.take("nobody", block=0.01) is None, "the group is made"
    history = History(turns, queue, ByteCounter(), requeue_after=60)
    for i in range(3):
        await history.append(NAME, Draft(f"t{i}", pcm=PCM[: 100 + i]))
    await fill(full)
    config = WorkerConfig(min_idle=0.05, max_attempts=1, block=0.02, backoff=0.1)
    worker = TranscriptionWorker("w", queue, turns, Counting(), config)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())

        async def gone():
            return not await full.client.exists(NAME.keys()[4])

        await eventually(gone)
        task.cancel()
    assert [turn.user_text for turn in await turns.page(NAME, limit=9)] == [
        f"{100 + i} samples" for i in range(3)
    ]


async def test_what_a_full_redis_would_do_is_known(full):
    assert not await full.may_evict()
    await full.client.config_set("maxmemory-policy", "volatile-lru")
    assert await full.may_evict()


async def test_a_redis_that_does_not_tell_what_it_does_when_full_is_no_reason_to_refuse(
    full, monkeypatch
):
    async def info(section):
        return {"used_memory": 1, "maxmemory": 0}

    monkeypatch.setattr(full.client, "info", info)
    assert not await full.may_evict()
