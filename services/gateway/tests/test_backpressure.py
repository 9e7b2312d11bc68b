"""A client that reads slowly slows the pipeline down; nothing piles up in the gateway."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from gateway_fakes import WORDS, fake_stages, text
from gateway_harness import running_gateway, settings_for, vowels
from gateway_talk import config, runner_of, talking
from parley.chat.v1 import message_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_gateway.latency import TurnLatency
from parley_gateway.reply import Reply, ReplyAudio, ReplyPlan, ReplyText
from parley_gateway.stages.bundle import missing_stages, open_stages
from parley_gateway.turns.events import ReplyKey

pytestmark = pytest.mark.contract

PLAN = ReplyPlan(ReplyKey("s", "t", 0), [text(message_pb2.ROLE_USER, "hello")], sample_rate=22_050)


async def test_a_client_that_takes_no_audio_holds_the_chat_up():
    async with fake_stages() as fakes, AsyncExitStack() as closing:
        fakes.chat.repeat = 200
        stages = await open_stages(settings_for(fakes).stages, closing)
        reading = asyncio.Event()
        seen = []

        one_writer = asyncio.Lock()

        async def emit(event):
            async with one_writer:
                seen.append(event)
                if isinstance(event, ReplyAudio):
                    await reading.wait()

        reply = Reply(PLAN, stages, TurnLatency("ask"), emit)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(reply.run())
            async with asyncio.timeout(10):
                while not any(isinstance(each, ReplyAudio) for each in seen):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            before = -1
            while len(seen) > before:
                before = len(seen)
                await asyncio.sleep(0.2)
            words = sum(isinstance(each, ReplyText) for each in seen)
            assert words < WORDS * fakes.chat.repeat / 2
            assert sum(isinstance(each, ReplyAudio) for each in seen) == 1
            running.cancel()
        await fakes.idle()


async def test_stages_that_are_not_there_are_named():
    async with fake_stages() as fakes, AsyncExitStack() as closing:
        targets = settings_for(fakes).stages
        dead = targets.tts.model_copy(update={"address": "127.0.0.1:1"})
        stages = await open_stages(targets.model_copy(update={"tts": dead}), closing)
        assert await missing_stages(stages, 0.5) == ["tts"]


async def test_a_conversation_whose_client_takes_nothing_is_not_written_ahead_for(gateway):
    fakes = gateway.stages
    fakes.chat.repeat = 30
    reading, left, completed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write(response):
        match response.WhichOneof("event"):
            case "audio":
                await reading.wait()
            case "response_completed":
                completed.set()

    async def requests():
        yield pb.StreamingConverseRequest(text=pb.TextInput(text="hello"))
        await left.wait()

    runner = await runner_of(gateway, write)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(runner.run(requests()))
        # So few words fit into the buffers between: the stage is through, the session is not.
        await fakes.chat.finished.wait()
        async with asyncio.timeout(10):
            while runner._outbox._room.is_set():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        before = -1
        while len(runner._outbox._waiting) > before:
            before = len(runner._outbox._waiting)
            await asyncio.sleep(0.2)
        assert 8 < before < 32
        reading.set()
        async with asyncio.timeout(10):
            await completed.wait()
        running.cancel()


async def test_a_client_that_only_sends_is_read_no_further_than_its_answers_may_wait(gateway):
    reading, sent, all_sent = asyncio.Event(), 0, asyncio.Event()

    async def write(response):
        await reading.wait()

    async def requests():
        nonlocal sent
        for sent in range(1, 5001):  # noqa: B007 - it is looked at from outside
            yield pb.StreamingConverseRequest(cancel_response=pb.CancelResponse(response_id="x"))
            await asyncio.sleep(0)
        all_sent.set()
        await asyncio.Event().wait()

    runner = await runner_of(gateway, write)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(runner.run(requests()))
        async with asyncio.timeout(10):
            while runner._outbox._slack.is_set():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert 500 < before <= sent <= before + 1 < 2000
        reading.set()
        async with asyncio.timeout(10):
            await all_sent.wait()
        running.cancel()


async def test_a_turn_holds_no_more_audio_than_one_may_last_however_fast_it_comes():
    async with (
        fake_stages() as stages,
        running_gateway(stages, request_limits={"max_utterance_s": 4}) as gateway,
        talking(gateway, config=config(manual_activity=True)) as talk,
    ):
        await talk.send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_START))
        await talk.say(vowels(20.0), packet=32_000)
        assert (await talk.until("notice")).notice.problem.reason == "UTTERANCE_TOO_LONG"
        await talk.send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_END))
        await talk.until("response_completed")
        session = talk.seen[0].setup_complete.session
        (turn,) = stages.context.turns[session].values()
    assert turn.user_audio_duration.ToNanoseconds() / 1e9 == pytest.approx(5.0, abs=0.7)
