"""Stages that die, hang or are replaced in the middle of a conversation."""

import asyncio
import os
import signal
import time

import pytest
from chaos_talk import ENDED, LOST, question, talking
from constellation import metric, until
from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import Client, ConversationConfig

pytestmark = pytest.mark.chaos

# A reply long enough to be hit in its middle.
STORY = ConversationConfig(max_output_tokens=256)
HUNG_S = 60.0


def ending(done) -> str:
    return done.message.error.reason or pb.ResponseStatus.Name(done.message.status)[16:].lower()


@pytest.mark.parametrize("stage", ["chat-llm", "tts", "vocoder"])
async def test_a_stage_that_dies_mid_reply_costs_that_reply_alone(rig, book, stage):
    expected = "typed error at once, stream lives, next reply good when the stage is back"
    with book.fault(rig, f"{stage} killed mid-reply", expected) as row:
        async with Client(rig.address) as client, talking(client, config=STORY) as talk:
            await talk.conversation.send_text("Tell me a story.")
            await talk.until("text_delta" if stage == "chat-llm" else "audio")
            rig.kill(stage)
            killed = time.monotonic()
            done = await talk.until("response_completed")
            told_s = time.monotonic() - killed
            # What the stage had made before it died may have been all.
            assert done.message.status in ENDED or done.message.error.reason in LOST, done
            await rig.serving()
            failed = await talk.recovered()
            row.happened = f"{ending(done)} after {told_s:.1f} s; then {failed} failed, next good"


async def test_a_stage_that_dies_before_its_first_output_is_asked_once_more_elsewhere(rig, book):
    slow = {"PARLEY_CHAT_LLM_SIMULATOR__TTFT": "3"}
    expected = "the other replica is asked, the reply completes"
    with (
        book.fault(rig, "one of two chat-llm killed before its first word", expected) as row,
        rig.extra("chat-llm", slow) as one,
        rig.extra("chat-llm", slow) as two,
    ):
        both = f"ipv4:{one.address},{two.address}"
        with rig.extra("gateway", {"PARLEY_GATEWAY_STAGES__CHAT__ADDRESS": both}) as gateway:
            async with Client(gateway.address) as client, talking(client) as talk:
                await talk.conversation.send_text("Tell me a story.")

                def busy():
                    running = "parley_engine_requests_running"
                    return [each for each in (one, two) if metric(each.metrics_address, running)]

                (victim,) = until(busy, 30, "a generation")
                os.kill(victim.pid, signal.SIGKILL)
                done = await talk.until("response_completed")
                assert done.message.status in ENDED, done.message
                assert b'"stage_lost"' in gateway.log.read_bytes()
                row.happened = f"asked again, {ending(done)}"


@pytest.mark.parametrize("stage", ["tokenizer", "chat-llm", "tts", "vocoder", "asr-context"])
async def test_a_stage_that_hangs_is_given_up_and_the_conversation_goes_on(rig, book, stage):
    expected = f"typed error within {HUNG_S:.0f} s, stream lives, next reply good"
    with book.fault(rig, f"{stage} hangs (SIGSTOP)", expected) as row:
        async with Client(rig.address) as client, talking(client) as talk:
            with rig.stopped(rig.pid(stage)):
                stopped = time.monotonic()
                await talk.say(question())
                done = await talk.until("response_completed", HUNG_S)
                told_s = time.monotonic() - stopped
                assert done.message.error.reason in LOST, done
            failed = await talk.recovered()
            row.happened = f"{ending(done)} after {told_s:.1f} s; then {failed} failed, next good"


async def test_a_stage_that_hangs_mid_reply_is_given_up(rig, book):
    expected = f"typed error within {HUNG_S:.0f} s, stream lives, next reply good"
    with book.fault(rig, "vocoder hangs mid-reply (SIGSTOP)", expected) as row:
        async with Client(rig.address) as client, talking(client, config=STORY) as talk:
            await talk.conversation.send_text("Tell me a story.")
            await talk.until("audio")
            with rig.stopped(rig.pid("vocoder")):
                stopped = time.monotonic()
                done = await talk.until("response_completed", HUNG_S)
                told_s = time.monotonic() - stopped
            failed = await talk.recovered()
            row.happened = f"{ending(done)} after {told_s:.1f} s; then {failed} failed, next good"


async def test_a_hang_shorter_than_anybody_s_patience_only_delays(rig, book):
    with book.fault(rig, "chat-llm hangs for 2 s", "the reply is late and complete") as row:
        async with Client(rig.address) as client, talking(client) as talk:
            with rig.stopped(rig.pid("chat-llm")):
                await talk.conversation.send_text("Tell me a story.")
                await asyncio.sleep(2.0)
            done = await talk.until("response_completed")
            assert done.message.status in ENDED, done.message
            row.happened = f"late, {ending(done)}"
