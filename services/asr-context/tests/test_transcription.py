import asyncio
import contextlib
import dataclasses

import pytest
from context_fakes import Counting, Failing
from context_redis import eventually
from parley_asr_context.history import History
from parley_asr_context.keys import TRANSCRIPTION_DEAD, TRANSCRIPTION_JOBS
from parley_asr_context.sessions import Sessions
from parley_asr_context.token_counter import ByteCounter
from parley_asr_context.transcription_queue import GROUP, TranscriptionQueue
from parley_asr_context.turns import Draft, TranscriptState, Turns
from parley_asr_context.worker import TranscriptionWorker, WorkerConfig
from parley_core.errors import InvalidArgument
from redis.asyncio import Redis
from redis.exceptions import ResponseError

pytestmark = pytest.mark.contract

CONFIG = WorkerConfig(min_idle=0.05, max_attempts=2, block=0.02)


class Rig:
    def __init__(self, store, name):
        self.store, self.name = store, name
        self.turns = Turns(store, max_turns=99, audio_ttl=60)
        self.queue = TranscriptionQueue(store)
        counter = ByteCounter()
        self.history = History(self.turns, self.queue, counter, requeue_after=0.0)

    def worker(self, consumer, transcriber):
        return TranscriptionWorker(consumer, self.queue, self.turns, transcriber, CONFIG)

    @contextlib.asynccontextmanager
    async def working(self, transcriber, *, consumer="w"):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.worker(consumer, transcriber).run())
            yield task
            task.cancel()

    async def settled(self, turn_id):
        async def done():
            turn = await self.turns.get(self.name, turn_id)
            return turn if turn.transcript is not TranscriptState.PENDING else None

        return await eventually(done)

    async def drained(self):
        async def empty():
            return await self.queue.depth() == 0

        return await eventually(empty)


@pytest.fixture
async def rig(store, name):
    await Sessions(store).create(name, ttl=60)
    return Rig(store, name)


async def test_audio_gets_its_text_and_is_then_forgotten(rig, pcm):
    async with rig.working(Counting()):
        await rig.history.append(rig.name, Draft("t", user_audio=(1, 2), pcm=pcm))
        turn = await rig.settled("t")
        await rig.drained()
    assert (turn.transcript, turn.user_text) == (TranscriptState.DONE, "1600 samples")
    assert not await rig.store.client.exists(rig.name.keys()[4])


async def test_append_waits_for_the_text_as_long_as_it_was_told(rig, pcm):
    held = Counting(held=True)
    async with rig.working(held):
        turn = await rig.history.append(rig.name, Draft("a", pcm=pcm), wait=0.03)
        assert turn.transcript is TranscriptState.PENDING
        held.release.set()
        turn = await rig.history.append(rig.name, Draft("b", pcm=pcm[:800]), wait=5)
        assert turn.user_text == "800 samples"


async def test_what_a_killed_worker_had_in_hand_is_done_by_another(rig, pcm):
    held = Counting(held=True)
    async with rig.working(held, consumer="killed") as task:
        await rig.history.append(rig.name, Draft("t", pcm=pcm))
        await held.started.wait()
        task.cancel()
    assert (await rig.turns.get(rig.name, "t")).transcript is TranscriptState.PENDING
    async with rig.working(Counting(), consumer="heir"):
        assert (await rig.settled("t")).user_text == "1600 samples"
        await rig.drained()


async def test_a_worker_that_leaves_hands_its_job_to_the_next_at_once(rig, pcm):
    config = WorkerConfig(min_idle=600, max_attempts=1, block=0.02)
    await rig.history.append(rig.name, Draft("t", pcm=pcm))
    for consumer in ("first", "second", "third"):
        held = Counting(held=consumer != "third")
        worker = TranscriptionWorker(consumer, rig.queue, rig.turns, held, config)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run())
            await held.started.wait()
            if consumer == "third":
                assert (await rig.settled("t")).user_text == "1600 samples"
                await rig.drained()
            task.cancel()


async def test_a_slow_worker_keeps_its_job(rig, pcm, monkeypatch):
    kept = []
    keep = rig.queue.keep

    async def counted(consumer, delivery):
        await keep(consumer, delivery)
        kept.append(consumer)

    monkeypatch.setattr(rig.queue, "keep", counted)
    slow, other = Counting(held=True), Counting()
    async with rig.working(slow, consumer="slow"):
        await rig.history.append(rig.name, Draft("t", pcm=pcm))
        await slow.started.wait()
        async with rig.working(other, consumer="other"):

            async def long_past_idle():
                return len(kept) >= 6  # each a third of min_idle after the one before

            await eventually(long_past_idle)
            assert other.calls == 0
            slow.release.set()
            assert (await rig.settled("t")).user_text == "1600 samples"
    assert set(kept) == {"slow"}


async def test_a_job_that_always_crashes_is_buried_after_its_tries(rig, pcm):
    failing = Failing(RuntimeError("boom"))
    async with rig.working(failing):
        await rig.history.append(rig.name, Draft("t", user_audio=(1,), pcm=pcm))
        turn = await rig.settled("t")
        await rig.drained()
    assert (turn.transcript, failing.calls) == (TranscriptState.FAILED, CONFIG.max_attempts)
    ((_, letter),) = await rig.store.client.xrange(TRANSCRIPTION_DEAD)
    assert (letter[b"turn"], letter[b"cause"]) == (b"t", b"RuntimeError")


async def test_audio_that_can_never_be_transcribed_is_tried_once(rig, pcm):
    failing = Failing(InvalidArgument("too long"))
    async with rig.working(failing):
        await rig.history.append(rig.name, Draft("t", pcm=pcm))
        assert (await rig.settled("t")).transcript is TranscriptState.FAILED
        await rig.drained()
    assert failing.calls == 1


async def test_audio_that_outlived_its_ttl_fails_the_turn(rig, pcm):
    await rig.history.append(rig.name, Draft("t", pcm=pcm))
    await rig.store.client.delete(rig.name.keys()[4])
    counting = Counting()
    async with rig.working(counting):
        assert (await rig.settled("t")).transcript is TranscriptState.FAILED
        await rig.drained()
    assert counting.calls == 0


async def test_a_job_of_a_deleted_session_is_dropped(rig, pcm):
    await rig.history.append(rig.name, Draft("t", pcm=pcm))
    await Sessions(rig.store).delete(rig.name)
    counting = Counting()
    async with rig.working(counting):
        await rig.drained()
    assert counting.calls == 0
    assert await rig.store.client.xlen(TRANSCRIPTION_DEAD) == 0


async def test_a_turn_whose_job_was_lost_is_queued_by_a_repeat_and_by_the_next_prompt(rig, pcm):
    draft = Draft("t", user_audio=(1,), pcm=pcm)
    await rig.turns.append(rig.name, draft)  # died before the queue was told
    assert await rig.queue.depth() == 0
    await rig.history.append(rig.name, draft)
    assert await rig.queue.depth() == 1
    await rig.history.build_prompt(rig.name, 100)
    assert await rig.queue.depth() == 2
    counting = Counting()
    async with rig.working(counting):
        assert (await rig.settled("t")).user_text == "1600 samples"
        await rig.drained()
    assert counting.calls == 1


async def test_many_workers_share_the_work_and_lose_none(rig, pcm):
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(rig.worker(f"w{i}", Counting()).run()) for i in range(3)]
        for i in range(20):
            await rig.history.append(rig.name, Draft(f"t{i}", pcm=pcm[: 100 + i]))
        for i in range(20):
            assert (await rig.settled(f"t{i}")).user_text == f"{100 + i} samples"
        for worker in workers:
            worker.cancel()


async def test_the_prompt_of_a_long_session_reads_as_far_back_as_it_fits(rig):
    for i in range(90):
        await rig.history.append(
            rig.name, Draft(f"t{i}", user_text=f"{i:03}", generated_text="x", heard_text="x")
        )
    whole = await rig.history.build_prompt(rig.name, 10_000)
    assert (whole.prompt.kept_turns, whole.dropped_turns) == (90, 0)
    some = await rig.history.build_prompt(rig.name, whole.prompt.token_count // 2)
    assert some.prompt.kept_turns + some.dropped_turns == 90
    assert some.prompt.messages == whole.prompt.messages[-2 * some.prompt.kept_turns :]


GOOD = {"tenant": "t", "session": "s", "uid": "u", "turn": "t", "audio": "d"}


@pytest.mark.parametrize(
    "entry",
    [{"of": "another version"}, GOOD | {"tenant": "a b"}, GOOD | {"session": b"\xff"}],
    ids=["fields", "name", "bytes"],
)
@pytest.mark.parametrize("found", ["new", "left by a worker that it killed"])
async def test_an_entry_that_is_no_job_is_buried_and_stops_no_worker(rig, pcm, entry, found):
    assert await rig.queue.take("w", block=0.01) is None, "the group is made"
    await rig.store.client.xadd(TRANSCRIPTION_JOBS, entry)
    if found != "new":
        await rig.store.client.xreadgroup(GROUP, "killed", {TRANSCRIPTION_JOBS: ">"})
    await rig.history.append(rig.name, Draft("t", pcm=pcm))
    async with rig.working(Counting()):
        assert (await rig.settled("t")).user_text == "1600 samples"
        await rig.drained()
    ((_, letter),) = await rig.store.client.xrange(TRANSCRIPTION_DEAD)
    assert letter.pop(b"cause") == b"unreadable"
    assert set(letter) == {key.encode() for key in entry}


async def test_a_worker_that_redis_sends_away_while_it_waits_goes_on(rig, pcm, redis_server):
    counting = Counting()
    config = dataclasses.replace(CONFIG, block=5.0)
    worker = TranscriptionWorker("w", rig.queue, rig.turns, counting, config)
    async with asyncio.TaskGroup() as group, Redis.from_url(redis_server.url) as admin:
        task = group.create_task(worker.run())

        async def sent_away():
            waiting = [each for each in await admin.client_list() if each["cmd"] == "xreadgroup"]
            return sum([await admin.client_unblock(each["id"], error=True) for each in waiting])

        # Twice: it comes again.
        await eventually(sent_away)
        await eventually(sent_away)
        await rig.history.append(rig.name, Draft("t", pcm=pcm))
        assert (await rig.settled("t")).user_text == "1600 samples"
        task.cancel()


async def test_an_answer_that_nobody_expects_ends_no_worker(rig, pcm, monkeypatch):
    answers = [ResponseError("NOPERM"), TypeError("no stream")]
    claim = rig.queue.claim

    async def odd(consumer, *, min_idle):
        if answers:
            raise answers.pop()
        return await claim(consumer, min_idle=min_idle)

    monkeypatch.setattr(rig.queue, "claim", odd)
    async with rig.working(Counting()):
        await rig.history.append(rig.name, Draft("t", pcm=pcm))
        assert (await rig.settled("t")).user_text == "1600 samples"


async def test_a_pending_turn_is_queued_again_though_the_clock_was_set_back(rig, pcm):
    turns = rig.turns
    await turns.append(rig.name, Draft("t", pcm=pcm))
    assert await turns.claim_requeue(rig.name, "t", min_age=60) is None
    # An hour back, as the store's clock sees it.
    await rig.store.client.hincrby(rig.name.keys()[2], "t/queued_ms", 3_600_000)
    assert await turns.claim_requeue(rig.name, "t", min_age=60)
    assert await turns.claim_requeue(rig.name, "t", min_age=60) is None
