"""The stock OpenAI SDK holds conversations with a live gateway in front of fake stages."""

import base64
import json

import numpy as np
import pytest
from gateway_fakes import answer_to
from gateway_harness import silence, vowels
from gateway_realtime import MANUAL, RATE, base64_of, connected, http_port

pytestmark = pytest.mark.contract

QUESTION = np.concatenate(
    [silence(0.5, rate=RATE), vowels(0.8, rate=RATE), silence(1.0, rate=RATE)]
)
VAD = {"type": "server_vad", "silence_duration_ms": 200}


@pytest.fixture
async def address(gateway):
    async with http_port(gateway) as address:
        yield address


async def test_a_spoken_turn_goes_through_the_events_of_the_protocol_in_order(gateway, address):
    async with connected(address) as caller:
        created = (await caller.until("session.created")).session
        transcription = {"model": "parley"}
        audio = {"input": {"turn_detection": VAD, "transcription": transcription}}
        session = await caller.update(audio=audio)
        await caller.say(QUESTION)
        done = (await caller.until("response.done")).response
        written = await caller.ever("conversation.item.input_audio_transcription.completed")
    assert created.audio.input.format.rate == RATE
    assert session.audio.input.turn_detection.silence_duration_ms == 200
    order = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    kinds = caller.kinds()
    assert [kinds.index(each) for each in order] == sorted(kinds.index(each) for each in order)
    (started,) = caller.of("input_audio_buffer.speech_started")
    assert started.audio_start_ms == pytest.approx(500, abs=100)
    assert done.status == "completed"
    (committed,) = caller.of("input_audio_buffer.committed")
    assert written.item_id == committed.item_id == started.item_id
    assert written.transcript
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0
    text = "".join(each.delta for each in caller.of("response.output_audio_transcript.delta"))
    assert text == answer_to(gateway.stages.chat.requests[-1].messages)
    assert done.output[0].content[0].transcript == text
    sound = b"".join(
        base64.b64decode(each.delta) for each in caller.of("response.output_audio.delta")
    )
    assert len(sound) / 2 / RATE == pytest.approx(6 * 2 * 5 * 0.024, rel=0.02)


async def test_a_written_turn_is_answered_when_an_answer_is_asked_for(gateway, address):
    async with connected(address) as caller:
        await caller.update(instructions="You are a pirate.")
        await caller.write("hello")
        done = (await caller.until("response.done")).response
    assert done.status == "completed"
    messages = gateway.stages.chat.requests[-1].messages
    assert messages[0].parts[0].text == "You are a pirate."
    assert messages[-1].parts[0].text == "hello"


async def test_without_turn_detection_audio_waits_until_it_is_committed_and_asked_about(
    gateway, address
):
    async with connected(address) as caller:
        await caller.connection.session.update(session=MANUAL)
        await caller.until("session.updated")
        speech = vowels(0.7, rate=RATE)
        await caller.say(vowels(0.3, rate=RATE))
        await caller.connection.input_audio_buffer.clear()
        await caller.until("input_audio_buffer.cleared")
        await caller.say(speech)
        await caller.connection.input_audio_buffer.commit()
        committed = await caller.until("input_audio_buffer.committed")
        assert not gateway.stages.tokenizer.calls
        await caller.connection.response.create(response={"metadata": {"n": "1"}})
        done = (await caller.until("response.done")).response
        assert "input_audio_buffer.speech_started" not in caller.kinds()
    assert done.status == "completed"
    assert done.metadata == {"n": "1"}
    added = [each.item.id for each in caller.of("conversation.item.added")]
    assert added == [committed.item_id, done.output[0].id]
    ((turn,),) = [each.values() for each in gateway.stages.context.turns.values()]
    seconds = turn.user_audio_duration.ToNanoseconds() / 1e9
    # What was cleared is not in it; the lead-in of 0.4 s is silence.
    assert seconds == pytest.approx(0.7 + 0.4, abs=0.05)


async def test_speech_interrupts_the_reply_and_the_item_is_truncated_to_what_was_heard(
    gateway, address
):
    gateway.stages.tts.groups = 40
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": VAD}})
        await caller.write("tell me a story")
        first = (await caller.until("response.done")).response
        await caller.say(np.concatenate([silence(0.3, rate=RATE), vowels(1.0, rate=RATE)]))
        truncated = await caller.until("conversation.item.truncated")
        await caller.say(silence(0.8, rate=RATE))
        second = (await caller.until("response.done")).response
    assert truncated.item_id == first.output[0].id
    assert 0 <= truncated.audio_end_ms < 5_000
    kinds = caller.kinds()
    started = kinds.index("input_audio_buffer.speech_started")
    assert started < kinds.index("conversation.item.truncated")
    assert second.status == "completed"
    story, _ = next(iter(gateway.stages.context.turns.values())).values()
    assert len(story.heard_text) < len(story.generated_text)


async def test_a_client_that_truncates_sets_what_was_heard(gateway, address):
    gateway.stages.tts.groups = 40
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": None}})
        await caller.write("tell me a story")
        item = (await caller.until("response.done")).response.output[0]
        await caller.connection.conversation.item.truncate(
            item_id=item.id, content_index=0, audio_end_ms=5_000
        )
        truncated = await caller.until("conversation.item.truncated")
        await caller.write("stop")
        await caller.until("response.done")
    assert truncated.audio_end_ms == 5_000
    story, _ = next(iter(gateway.stages.context.turns.values())).values()
    # 4.8 s a word: one word was heard whole, the second in part.
    assert 0 < len(story.heard_text) <= 10
    assert story.generated_text.startswith(story.heard_text)


async def test_a_client_that_played_less_than_the_server_thought_is_believed(gateway, address):
    gateway.stages.tts.groups = 40
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": VAD}})
        await caller.write("tell me a story")
        item = (await caller.until("response.done")).response.output[0]
        await caller.say(np.concatenate([silence(0.3, rate=RATE), vowels(1.0, rate=RATE)]))
        by_the_clock = await caller.until("conversation.item.truncated")
        for cut_to in (0, by_the_clock.audio_end_ms + 500):
            await caller.connection.conversation.item.truncate(
                item_id=item.id, content_index=0, audio_end_ms=cut_to
            )
            told = await caller.until("conversation.item.truncated")
            assert (told.item_id, told.audio_end_ms) == (item.id, cut_to)
        await caller.say(silence(0.8, rate=RATE))
        await caller.until("response.done")
    assert by_the_clock.audio_end_ms > 0
    assert not caller.of("error")
    story, _ = next(iter(gateway.stages.context.turns.values())).values()
    # What was cut off stays cut off.
    assert story.generated_text
    assert story.heard_text == ""


async def test_a_reply_that_the_server_thinks_was_played_is_truncated(gateway, address):
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": None}})
        await caller.write("hi")
        item = (await caller.until("response.done")).response.output[0]
        await caller.connection.send(
            {
                "type": "parley.playback",
                "item_id": item.id,
                "played_ms": 100_000,
                "finished": True,
            }
        )
        await caller.connection.conversation.item.truncate(
            item_id=item.id, content_index=0, audio_end_ms=0
        )
        told = await caller.until("conversation.item.truncated")
        await caller.write("and then?")
        await caller.until("response.done")
    assert told.audio_end_ms == 0
    assert not caller.of("error")
    first, _ = next(iter(gateway.stages.context.turns.values())).values()
    assert (bool(first.generated_text), first.heard_text) == (True, "")


async def test_a_response_is_cancelled(gateway, address):
    gateway.stages.chat.gate.clear()
    async with connected(address) as caller:
        await caller.write("tell me a story")
        await caller.until("response.output_audio_transcript.delta")
        await caller.connection.response.cancel()
        done = (await caller.until("response.done")).response
        await caller.connection.response.cancel()
        error = (await caller.until("error")).error
        gateway.stages.chat.gate.set()
    assert done.status == "cancelled"
    assert done.status_details.reason == "client_cancelled"
    assert error.code == "response_cancel_not_active"


async def test_speech_can_be_an_item(gateway, address):
    async with connected(address) as caller:
        await caller.update(audio={"input": {"turn_detection": None}})
        content = [{"type": "input_audio", "audio": base64_of(vowels(0.5, rate=RATE))}]
        item = {"id": "mine", "type": "message", "role": "user", "content": content}
        await caller.connection.conversation.item.create(item=item)
        await caller.connection.response.create()
        assert (await caller.until("response.done")).response.status == "completed"
        await caller.connection.conversation.item.retrieve(item_id="mine")
        assert (await caller.until("conversation.item.retrieved")).item.id == "mine"


async def test_the_model_calls_functions_and_answers_with_their_results(gateway, address):
    gateway.stages.chat.calls_at_once = 2
    weather = {
        "type": "function",
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    async with connected(address) as caller:
        session = await caller.update(tools=[weather])
        assert session.tools[0].name == "weather"
        await caller.write("what is the weather in Jena?")
        calls = [
            await caller.until("response.function_call_arguments.done"),
            await caller.until("response.function_call_arguments.done"),
        ]
        await caller.until("response.done")
        for call in calls:
            assert json.loads(call.arguments) == {"city": "Jena"}
            item = {"type": "function_call_output", "call_id": call.call_id, "output": '{"c": 21}'}
            await caller.connection.conversation.item.create(item=item)
        await caller.connection.response.create()
        done = (await caller.until("response.done")).response
    assert len({call.call_id for call in calls}) == 2
    responses = [each.response.id for each in caller.of("response.done")]
    assert len(set(responses)) == len(responses) == 3
    assert done.output[0].content[0].transcript
    assert "error" not in caller.kinds()
    last = gateway.stages.chat.requests[-1].messages[-1].parts[0]
    assert "21" in str(last.function_result)
