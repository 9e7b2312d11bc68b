"""What is said while a function takes its time: heard in between, and no part of the answer."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from gateway_fakes import Fault, answer_to, fake_stages
from gateway_harness import running_gateway, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED


def with_function():
    asked = config()
    asked.functions.add(name="weather", description="Tells it.")
    return asked


def result(call_id):
    return pb.FunctionResult(call_id=call_id, output={"string_value": "rain"})


@asynccontextmanager
async def asking(after_s=0.05, groups=2):
    functions = {"filler": {"text": "One moment, please.", "after_s": after_s}}
    async with fake_stages() as stages, running_gateway(stages, functions=functions) as gateway:
        stages.tts.groups = groups
        async with talking(gateway, config=with_function()) as talk:
            await talk.write("what weather?")
            call_id = (await talk.until("function_call")).function_call.call_id
            yield stages, talk, call_id


def sound(talk):
    return [each.audio for each in talk.seen if each.WhichOneof("event") == "audio"]


async def test_it_is_said_once_before_the_answer_and_no_history_has_it():
    async with asking() as (stages, talk, call_id):
        first = await talk.until("audio")
        await talk.send(function_result=result(call_id))
        done = await talk.until("response_completed")
        session = talk.seen[0].setup_complete.session
        await talk.call.done_writing()
        await talk.rest()
    assert done.response_completed.status == COMPLETED
    assert first.response_id == done.response_id
    assert stages.tts.calls == 2
    answer = answer_to(stages.chat.requests[-1].messages)
    assert "".join(each.text_delta.text for each in talk.seen) == answer
    (turn,) = stages.context.turns[session].values()
    assert turn.heard_text == turn.generated_text == answer
    pieces = sound(talk)
    ends = [each.start_offset.ToNanoseconds() + each.duration.ToNanoseconds() for each in pieces]
    for piece, end in zip(pieces[1:], ends, strict=False):
        assert piece.start_offset.ToNanoseconds() == pytest.approx(end, abs=1000)
    assert (pieces[0].text_start, pieces[0].text_end) == (0, 0)
    assert pieces[-1].text_end == len(answer)


async def test_a_result_that_comes_soon_is_answered_without_it():
    async with asking(after_s=30) as (stages, talk, call_id):
        await talk.send(function_result=result(call_id))
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    assert stages.tts.calls == 1


async def test_it_can_be_interrupted_and_nothing_of_it_was_the_answer():
    async with asking(groups=60) as (stages, talk, _):
        await talk.until("audio")
        await talk.say(vowels(0.8))
        stopped = (await talk.until("interruption")).interruption
        await talk.until("function_call_cancellation")
        session = talk.seen[0].setup_complete.session
        await stages.idle_but("tokenizer")
    assert stopped.heard_text == ""
    turns = list(stages.context.turns[session].values())
    assert all("moment" not in each.generated_text for each in turns)


async def test_one_that_cannot_be_spoken_is_left_out():
    async with asking() as (stages, talk, call_id):
        stages.tts.faults.extend([Fault(before=True), Fault(before=True)])
        async with asyncio.timeout(5):
            while stages.tts.faults:  # noqa: ASYNC110 - the fake tells nobody
                await asyncio.sleep(0.005)
        await talk.send(function_result=result(call_id))
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    assert sound(talk)


async def test_what_is_said_before_a_call_is_heard_while_it_is_made_and_kept():
    async with fake_stages() as stages, running_gateway(stages) as gateway:
        stages.chat.says_first = "Let me look. "
        async with talking(gateway, config=with_function()) as talk:
            await talk.write("what weather?")
            call_id = (await talk.until("function_call")).function_call.call_id
            await talk.until("audio")
            await talk.send(function_result=result(call_id))
            await talk.until("response_completed")
            session = talk.seen[0].setup_complete.session
            await talk.call.done_writing()
            await talk.rest()
    (turn,) = stages.context.turns[session].values()
    answer = answer_to(stages.chat.requests[-1].messages)
    assert turn.heard_text == turn.generated_text == "Let me look. " + answer
    assert [each.text_start for each in sound(talk)] == sorted(e.text_start for e in sound(talk))
