"""A client that reads slowly slows the pipeline down; nothing piles up in the gateway."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from gateway_fakes import WORDS, fake_stages, text
from gateway_harness import settings_for
from gateway_talk import setup
from parley.chat.v1 import message_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_gateway.admission.ticket import Kind, Ticket
from parley_gateway.latency import TurnLatency
from parley_gateway.opening import open_conversation
from parley_gateway.reply import Reply, ReplyAudio, ReplyPlan, ReplyText
from parley_gateway.session import SessionRunner
from parley_gateway.stages.bundle import missing_stages, open_stages
from parley_gateway.stages.quota import Place
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
    ticket = Ticket("default", Kind.CONVERSATION, Place("s", "h"), None, "other", 5.0)

    async def admit(session, resumed):
        return ticket

    opening = await open_conversation(
        setup().setup, gateway.clients, gateway.settings, "default", admit
    )
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

    runner = SessionRunner(opening, gateway.clients, gateway.settings, None, write, turn_prefix="t")
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
