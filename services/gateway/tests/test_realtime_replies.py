"""Replies that a Realtime client did not ask for in so many words: committed early, or going on."""

import numpy as np
import pytest
from gateway_fakes import Fault
from gateway_harness import silence, vowels
from gateway_realtime import RATE, connected, http_port

pytestmark = pytest.mark.contract

QUESTION = np.concatenate(
    [silence(0.5, rate=RATE), vowels(0.8, rate=RATE), silence(1.0, rate=RATE)]
)
VAD = {"type": "server_vad", "silence_duration_ms": 500}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
async def address(gateway):
    async with http_port(gateway) as address:
        yield address


async def ask_for_a_call(caller, **session):
    """Lets the model call; returns the call."""
    await caller.update(tools=[FUNCTION], **session)
    await caller.write("book it")
    call = await caller.until("response.function_call_arguments.done")
    await caller.until("response.done")
    return call


async def give(caller, call, output="booked"):
    item = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    await caller.connection.conversation.item.create(item=item)


async def first_error(caller):
    """The next error; one that asks for an item that is not there if nothing else went wrong."""
    await caller.connection.conversation.item.retrieve(item_id="END")
    return (await caller.until("error")).error


def results_told(gateway):
    """Results of functions in the latest prompt."""
    messages = gateway.stages.chat.requests[-1].messages
    parts = [part for message in messages for part in message.parts]
    return [
        part.function_result.output.string_value
        for part in parts
        if part.HasField("function_result")
    ]


async def test_a_text_that_no_answer_was_asked_for_goes_before_what_is_spoken_next(
    gateway, address
):
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": VAD}})
        text = {"type": "input_text", "text": "My name is Bob."}
        item = {"type": "message", "role": "user", "content": [text]}
        await caller.connection.conversation.item.create(item=item)
        await caller.until("conversation.item.done")
        await caller.say(QUESTION)
        await caller.until("response.done")
        assert len(caller.of("response.created")) == 1
        assert not caller.of("error")
    messages = gateway.stages.chat.requests[-1].messages
    assert [each.parts[0].text for each in messages[1:-1] if each.parts[0].text] == [text["text"]]
    assert messages[-1].parts[0].HasField("audio")


async def test_a_reply_that_was_begun_early_and_fails_is_told(gateway, address):
    stages = gateway.stages
    stages.tokenizer.gate.clear()
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": VAD}})
        await caller.say(QUESTION)
        await caller.until("input_audio_buffer.committed")
        stages.chat.faults.extend([Fault(before=True)] * 4)
        stages.tokenizer.gate.set()
        done = (await caller.until("response.done")).response
    assert done.status == "failed"
    assert done.status_details.error.code == "stage_lost"
    assert len(caller.of("response.created")) == 1


async def test_a_reply_that_was_begun_early_is_cancelled_before_its_first_output(gateway, address):
    gateway.stages.tokenizer.gate.clear()
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": VAD}})
        await caller.say(QUESTION)
        await caller.until("input_audio_buffer.committed")
        await caller.connection.response.cancel()
        done = (await caller.until("response.done")).response
        gateway.stages.tokenizer.gate.set()
    assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")


async def test_a_result_reaches_the_model_though_the_user_speaks_before_an_answer_is_asked_for(
    gateway, address
):
    async with connected(address) as caller:
        call = await ask_for_a_call(caller, audio={"input": {"turn_detection": VAD}})
        gateway.stages.chat.talks_only = True
        await give(caller, call)
        await caller.say(np.concatenate([silence(0.3, rate=RATE), vowels(1.0, rate=RATE)]))
        await caller.until("input_audio_buffer.speech_started")
        await caller.say(silence(1.0, rate=RATE))
        await caller.until("input_audio_buffer.committed")
        await caller.until("response.done")
        assert results_told(gateway) == ["booked"]
        await caller.connection.response.create()
        assert (await first_error(caller)).code == "item_unknown"


async def test_asking_for_an_answer_to_a_result_lets_the_reply_go_on_and_no_more(gateway, address):
    async with connected(address) as caller:
        call = await ask_for_a_call(caller)
        await give(caller, call)
        await caller.connection.response.create(response={"metadata": {"n": "1"}})
        done = (await caller.until("response.done")).response
        assert done.metadata == {"n": "1"}
        await caller.connection.response.create()
        assert (await caller.until("error")).error.code == "nothing_to_answer"
    assert len(caller.of("response.created")) == len(gateway.stages.chat.requests) == 2


async def test_an_answer_that_is_asked_for_when_it_was_given_is_not_given_twice(gateway, address):
    async with connected(address) as caller:
        call = await ask_for_a_call(caller)
        await give(caller, call)
        await caller.until("response.done")
        await caller.connection.response.create(response={"metadata": {"n": "1"}})
        assert (await first_error(caller)).code == "item_unknown"
        gateway.stages.chat.talks_only = True
        await caller.write("thanks")
        assert (await caller.until("response.done")).response.metadata is None
    assert len(gateway.stages.chat.requests) == 3


async def test_a_result_and_a_text_reach_the_model_together(gateway, address):
    async with connected(address) as caller:
        call = await ask_for_a_call(caller)
        gateway.stages.chat.talks_only = True
        await give(caller, call)
        await caller.write("and be brief")
        while (await caller.until("response.done")).response.status != "completed":
            pass
    assert gateway.stages.chat.requests[-1].messages[-1].parts[0].text == "and be brief"
    assert results_told(gateway) == ["booked"]
    assert "error" not in caller.kinds()


async def test_a_result_that_nothing_waits_for_is_no_item(gateway, address):
    async with connected(address) as caller:
        call = await ask_for_a_call(caller)
        await give(caller, call)
        await caller.until("response.done")
        before = len(caller.of("conversation.item.added"))
        await give(caller, call)
        error = (await caller.until("error")).error
    assert (error.code, error.param) == ("call_unknown", "item.call_id")
    assert len(caller.of("conversation.item.added")) == before
