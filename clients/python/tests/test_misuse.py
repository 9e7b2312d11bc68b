"""Recordings, values and uses that nobody meant: told by a typed error, and nothing is lost."""

import asyncio
import io
import math

import numpy as np
import pytest
import soundfile
from parley_client import (
    AudioChunk,
    BadRecording,
    CallCancelled,
    Client,
    ConversationConfig,
    Recording,
    TextDelta,
    TurnPolicy,
    Unsendable,
)

pytestmark = pytest.mark.contract

TONE = np.sin(np.arange(8000) / 10) * 0.3


@pytest.fixture
async def client(gateway):
    async with Client(gateway.address) as client:
        yield client


def file(form, subtype, samples=TONE, rate=8000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["AIFF", "CAF", "AU", "W64", "RF64"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floating_samples_that_are_sent_as_pcm_keep_their_sound(form, subtype):
    recording = Recording.from_bytes(file(form, subtype))
    sent = np.frombuffer(recording.content, "<i2") / 32768
    assert np.abs(sent - TONE).max() < 1e-4


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_a_wav_file_of_a_telephone_is_sent_as_pcm(subtype):
    recording = Recording.from_bytes(file("WAV", subtype))
    assert (recording.sample_rate, recording.channels) == (8000, 1)
    heard = np.frombuffer(recording.content, "<i2")[1000:8000] / 32768
    assert heard.std() == pytest.approx(TONE.std(), rel=0.1)


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.full(800, 2**30, np.int32), 16000, "NOT_AUDIO"),
        (np.full(800, -(2**63), np.int64), 16000, "NOT_AUDIO"),
        (np.full(800, math.nan), 16000, "NOT_AUDIO"),
        (np.full(800, math.inf), 16000, "NOT_AUDIO"),
        (np.ones(800, np.int16), 0, "SAMPLE_RATE_UNSUPPORTED"),
        (np.ones(800, np.int16), -8000, "SAMPLE_RATE_UNSUPPORTED"),
        (np.ones(800, np.int16), math.nan, "SAMPLE_RATE_UNSUPPORTED"),
        (np.ones(800, np.int16), 2**40, "SAMPLE_RATE_UNSUPPORTED"),
    ],
)
def test_samples_that_would_come_out_as_noise_or_silence_are_refused(samples, rate, reason):
    with pytest.raises(BadRecording) as caught:
        Recording.from_samples(samples, rate)
    assert caught.value.reason == reason


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_full_scale_does_not_wrap_around(dtype):
    recording = Recording.from_samples(np.ones(8, dtype), 16000.0)
    assert recording.sample_rate == 16000
    assert set(np.frombuffer(recording.content, "<i2")) == {32767}


def test_a_file_that_breaks_off_or_holds_no_numbers_is_told_when_it_is_decoded():
    whole = file("FLAC", "PCM_16")
    for content in (whole[: len(whole) // 2], file("WAV", "FLOAT", np.full(800, math.nan))):
        with pytest.raises(BadRecording) as caught:
            Recording.from_bytes(content).samples()
        assert caught.value.reason == "AUDIO_MALFORMED"


async def test_bytes_of_any_kind_are_a_recording(client):
    content = file("WAV", "PCM_16")
    for audio in (content, bytearray(content), memoryview(content)):
        assert (await client.recognize(audio)).text == "old bridge"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.ask(text="\ud800"),
        lambda client: client.ask(text="x", session="\ud800"),
        lambda client: client.ask(text="x", config=ConversationConfig(seed=-1)),
        lambda client: client.ask(text="x", config=ConversationConfig(seed=2**64)),
        lambda client: client.ask(text="x", config=ConversationConfig(max_output_tokens=2**40)),
        lambda client: client.synthesize("\ud800"),
        lambda client: client.synthesize("x", voice="\ud800"),
        lambda client: client.converse(input_sample_rate=2**40),
        lambda client: client.converse(
            config=ConversationConfig(turn_policy=TurnPolicy(end_of_turn_silence_s=math.inf))
        ),
    ],
)
async def test_what_no_request_can_hold_is_told_and_never_sent(client, gateway, ask):
    with pytest.raises(Unsendable) as caught:
        ask(client)
    assert caught.value.reason == "MALFORMED_MESSAGE"
    assert gateway.speech.requests == []


async def test_what_no_call_can_hold_is_told_and_the_client_goes_on(client):
    for call in (
        client.voice("\ud800"),
        client.delete_voice("\ud800"),
        client.create_session(ttl=math.nan),
        client.session("\ud800"),
        client.turns("\ud800"),
    ):
        with pytest.raises(Unsendable):
            await call
    assert await client.voices()


async def test_a_conversation_goes_on_after_what_it_could_not_send(client):
    async with client.converse() as conversation:
        for send in (
            conversation.send_text("\ud800"),
            conversation.report_playback("r", math.nan),
            conversation.cancel_response("r", heard_s=math.inf),
            conversation.send_function_result("c", {"a": object()}),
            conversation.send_function_result("c", 10**400),
            conversation.send_function_error("c", "\ud800"),
            conversation.send_audio(np.zeros((320, 2), np.int16)),
        ):
            with pytest.raises(Unsendable):
                await send
        with pytest.raises(BadRecording):
            await conversation.send_audio(np.full(320, 2**20, np.int32))
        await conversation.send_text("hello")
        assert (await anext(aiter(conversation))).message.text == "hello"


@pytest.mark.parametrize("shape", [(320,), (320, 1)])
async def test_floating_samples_of_a_microphone_are_heard(client, gateway, shape):
    async with client.converse() as conversation:
        await conversation.send_audio(np.full(shape, 0.5, np.float32))
        await anext(aiter(conversation))
    heard = np.frombuffer(gateway.conversations.requests[-1].audio.content, "<i2")
    assert heard.tolist() == [16384] * 320


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a\0b"])
def test_a_key_that_no_header_can_carry_is_told(key):
    with pytest.raises(Unsendable) as caught:
        Client("127.0.0.1:1", api_key=key)
    assert caught.value.reason == "API_KEY_MALFORMED"


async def test_a_key_out_of_a_file_may_end_its_line(gateway):
    async with Client(gateway.address, api_key="k\n") as client:
        await client.voices()
    assert gateway.speech.metadata["authorization"] == "Bearer k"


@pytest.mark.parametrize("timeout", [1e10, 1e300, math.inf])
async def test_a_timeout_beyond_all_clocks_is_none(client, timeout):
    assert await client.voices(timeout=timeout)


async def test_an_answer_is_collected_whole_however_it_was_read_before(client):
    stream = client.ask(text="x")
    async for event in stream:
        if isinstance(event, AudioChunk):
            break
    answer = await stream.collect()
    assert answer.text == "The bridge is <old>."
    assert answer.duration_s == pytest.approx(1.0)
    again = await stream.collect()
    assert again.events == answer.events


async def test_a_speech_is_collected_whole_however_it_was_read_before(client):
    stream = client.synthesize("x")
    async for _ in stream:
        break
    assert (await stream.collect()).duration_s == 1.0
    assert (await stream.collect()).duration_s == 1.0


async def test_a_call_that_was_cancelled_on_this_side_does_not_cancel_who_reads_it(client, gateway):
    """A task that ends as cancelled ends its group without a word."""
    gateway.speech.hang = True
    stream = client.ask(text="x")
    stream.cancel()
    with pytest.raises(CallCancelled):
        await stream.collect()
    spoken = client.synthesize("x")
    spoken.cancel()
    with pytest.raises(CallCancelled):
        await spoken.collect()
    async with client.converse() as conversation:
        reading = asyncio.ensure_future(anext(aiter(conversation)))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(CallCancelled):
            await reading


async def test_a_task_that_is_cancelled_ends_as_cancelled(client, gateway):
    gateway.speech.hang = True
    stream = client.ask(text="x")
    async for event in stream:
        if isinstance(event, TextDelta) and event.text.endswith("."):
            break
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stream.collect()


async def test_a_closed_client_says_so(gateway):
    client = Client(gateway.address)
    await client.close()
    with pytest.raises(CallCancelled) as caught:
        await client.voices()
    assert caught.value.reason == "CLIENT_CLOSED"
    with pytest.raises(CallCancelled):
        client.ask(text="x")
    with pytest.raises(CallCancelled):
        async with client.converse():
            pass


async def test_a_conversation_that_was_not_entered_says_so(client):
    with pytest.raises(RuntimeError, match="async with"):
        await client.converse().send_text("x")
