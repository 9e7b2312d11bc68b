"""What SpeechService refuses, and that it goes on working."""

import pytest
from gateway_harness import recording
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2, speech_pb2
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract

PCM = audio_pb2.AUDIO_ENCODING_PCM_S16LE


def pcm(content=b"\0\0" * 800, rate=16_000, channels=1, encoding=PCM):
    form = audio_pb2.AudioFormat(encoding=encoding, sample_rate_hertz=rate, channel_count=channels)
    return speech_pb2.Recording(format=form, content=content)


def cut(recorded, size):
    recorded.content = recorded.content[:size]
    return recorded


def config(**fields):
    return conversation_pb2.ConversationConfig(**fields)


def function(name):
    return conversation_pb2.FunctionDeclaration(name=name)


BAD_QUESTIONS = {
    "rate too low": ({"audio": pcm(rate=4000)}, "SAMPLE_RATE_UNSUPPORTED"),
    "rate too high": ({"audio": pcm(rate=400_000)}, "SAMPLE_RATE_UNSUPPORTED"),
    "nine channels": ({"audio": pcm(channels=9)}, "CHANNEL_COUNT_UNSUPPORTED"),
    "no encoding": ({"audio": pcm(encoding=0)}, "AUDIO_ENCODING_UNSUPPORTED"),
    "no samples": ({"audio": pcm(content=b"")}, "AUDIO_EMPTY"),
    "half a sample": ({"audio": pcm(content=b"\0\0\0")}, "AUDIO_FRAME_MALFORMED"),
    "too long": ({"audio": pcm(content=b"\0\0" * 8000 * 61, rate=8000)}, "AUDIO_TOO_LONG"),
    "truncated WAV": ({"audio": cut(recording(), 4000)}, "AUDIO_TRUNCATED"),
    "truncated header": ({"audio": cut(recording(), 20)}, "AUDIO_TRUNCATED"),
    "empty file": ({"audio": cut(recording(), 0)}, "AUDIO_EMPTY"),
    "no question": ({}, "QUESTION_MISSING"),
    "blank text": ({"text": "  \n"}, "TEXT_EMPTY"),
    "100k characters": ({"text": "a" * 100_000}, "TEXT_TOO_LONG"),
    "unknown session": (
        {"text": "hi", "session": "tenants/default/sessions/gone"},
        "SESSION_EXPIRED",
    ),
    "foreign session": ({"text": "hi", "session": "tenants/acme/sessions/s0"}, "SESSION_UNKNOWN"),
    "malformed session": ({"text": "hi", "session": "../../etc"}, "SESSION_NAME_MALFORMED"),
    "unknown voice": ({"text": "hi", "config": config(voice="nobody")}, "VOICE_UNKNOWN"),
    "long persona": (
        {"text": "hi", "config": config(system_prompt="a" * 100_000)},
        "TEXT_TOO_LONG",
    ),
    "function name": (
        {"text": "hi", "config": config(functions=[function("a b")])},
        "FUNCTION_NAME_INVALID",
    ),
    "same function twice": (
        {"text": "hi", "config": config(functions=[function("f"), function("f")])},
        "FUNCTION_TWICE_INVALID",
    ),
    "temperature": (
        {"text": "hi", "config": config(sampling=conversation_pb2.Sampling(temperature=-1))},
        "SAMPLING_INVALID",
    ),
}


@pytest.mark.parametrize(("fields", "reason"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
async def test_a_bad_question_is_refused_with_its_reason(gateway, fields, reason):
    async with rpc_fails(reason):
        async for _ in gateway.speech.Ask(speech_pb2.AskRequest(**fields)):
            pass
    await gateway.stages.idle()
    good = speech_pb2.AskRequest(text="hello", text_only=True)
    assert [each async for each in gateway.speech.Ask(good)][-1].finished.answer_text


async def synthesize(gateway, **fields):
    request = speech_pb2.SynthesizeRequest(**fields)
    return [each async for each in gateway.speech.Synthesize(request)]


async def test_a_text_is_spoken(gateway):
    responses = await synthesize(
        gateway, text="good morning", style_tags=["高兴1"], strict_tags=True
    )
    kinds = [each.WhichOneof("event") for each in responses]
    assert (kinds[0], kinds[-1]) == ("started", "finished")
    assert set(kinds[1:-1]) == {"audio"}
    assert responses[0].started.voice == "tingting"
    usage = responses[-1].finished.usage
    samples = sum(len(each.audio.content) // 2 for each in responses)
    assert usage.audio_duration.ToNanoseconds() == pytest.approx(samples / 22_050 * 1e9)


async def test_a_text_that_makes_no_sound_is_told_and_not_answered_with_nothing(gateway):
    gateway.stages.tts.groups = 0
    async with rpc_fails("NO_TOKENS"):
        await synthesize(gateway, text="hello")
    await gateway.stages.idle()
    gateway.stages.tts.groups = 2
    assert await synthesize(gateway, text="hello")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": ""}, "TEXT_EMPTY"),
        ({"text": "a" * 100_000}, "TEXT_TOO_LONG"),
        ({"text": "a", "voice": "nobody"}, "VOICE_UNKNOWN"),
        ({"text": "a", "style_tags": ["x"], "strict_tags": True}, "TAG_UNKNOWN"),
        ({"text": "a", "temperature": 3}, "SAMPLING_INVALID"),
    ],
)
async def test_a_bad_text_is_refused_with_its_reason(gateway, fields, reason):
    async with rpc_fails(reason):
        await synthesize(gateway, **fields)
    await gateway.stages.idle()
    assert await synthesize(gateway, text="good morning")


async def test_a_recording_is_written_down_at_the_rate_of_the_models(gateway):
    request = speech_pb2.RecognizeRequest(audio=recording(rate=48_000, seconds=1))
    response = await gateway.speech.Recognize(request)
    assert response.text == "32000 bytes"
    assert response.words[0].text == "words"
    assert response.audio_duration.ToMilliseconds() == 1000


async def test_an_empty_recording_is_not_written_down(gateway):
    async with rpc_fails("AUDIO_EMPTY"):
        await gateway.speech.Recognize(speech_pb2.RecognizeRequest(audio=pcm(content=b"")))


async def test_voices_are_the_tts_stage_s(gateway):
    listed = await gateway.speech.ListVoices(speech_pb2.ListVoicesRequest())
    assert listed.default_voice == "tingting"
    assert [each.name for each in listed.voices] == ["tingting"]
    clone = speech_pb2.CloneVoiceRequest(
        name="ada", audio=recording(seconds=2), prompt_text="hello", consent="Ada, in writing"
    )
    assert (await gateway.speech.CloneVoice(clone)).cloned
    await gateway.speech.DeleteVoice(speech_pb2.DeleteVoiceRequest(name="ada"))
    async with rpc_fails("VOICE_UNKNOWN"):
        await gateway.speech.GetVoice(speech_pb2.GetVoiceRequest(name="nobody"))
