"""Ask against a live gateway and fake stages."""

import asyncio
import time

import grpc
import pytest
from gateway_fakes import RATE, SAMPLES_PER_TOKEN, Fault, answer_to, ids_of
from gateway_harness import recording
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2
from parley.conversation.v1 import conversation_pb2, speech_pb2
from parley_core.errors import Unavailable
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract


async def ask(gateway, **fields):
    request = speech_pb2.AskRequest(**fields)
    return [response async for response in gateway.speech.Ask(request)]


def expected_answer(content: bytes) -> str:
    part = message_pb2.Part(audio=audio_pb2.AudioTokens(ids=ids_of(content)))
    return answer_to([message_pb2.Message(parts=[part])])


async def test_a_spoken_question_is_answered_in_order_and_remembered(gateway):
    question = recording(1)
    responses = await ask(gateway, audio=question)
    kinds = [each.WhichOneof("event") for each in responses]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"text_delta", "audio"}
    assert kinds.index("text_delta") < kinds.index("audio")

    started, finished = responses[0].started, responses[-1].finished
    assert started.question_token_count == 20
    assert started.question_duration.ToMilliseconds() == 500
    assert started.output_format.sample_rate_hertz == RATE
    text = "".join(each.text_delta.text for each in responses)
    assert text == finished.answer_text == expected_answer(question.content)
    assert finished.heard_text == "16000 bytes"
    assert finished.stub_weights
    assert finished.status == conversation_pb2.RESPONSE_STATUS_COMPLETED

    sound = [each.audio for each in responses if each.WhichOneof("event") == "audio"]
    samples = sum(len(each.content) // 2 for each in sound)
    assert samples == finished.usage.audio_output_tokens * SAMPLES_PER_TOKEN
    end = 0.0
    for each in sound:
        assert each.start_offset.ToNanoseconds() / 1e9 == pytest.approx(end, abs=1e-6)
        end += each.duration.ToNanoseconds() / 1e9
        assert 0 <= each.text_start < each.text_end <= len(text)
    assert sound[-1].text_end == len(text)

    (turn,) = gateway.stages.context.turns[started.session].values()
    assert turn.turn_id == started.turn_id
    assert turn.heard_text == turn.generated_text == text
    assert turn.status == context_pb2.TURN_STATUS_COMPLETED
    assert list(turn.user_audio.ids) == ids_of(question.content)


async def test_first_audio_leaves_before_the_chat_reply_is_complete(gateway):
    gateway.stages.chat.gate.clear()
    call = gateway.speech.Ask(speech_pb2.AskRequest(audio=recording(2)))
    while (await call.read()).WhichOneof("event") != "audio":
        pass
    assert gateway.stages.chat.finished_at == 0
    gateway.stages.chat.gate.set()
    while (await call.read()).WhichOneof("event") != "finished":
        pass
    assert gateway.stages.chat.finished_at > 0


async def test_latency_tells_every_stage_in_order_of_work(gateway):
    finished = (await ask(gateway, audio=recording(3)))[-1].finished
    stages = {each.stage: each for each in finished.latency.stages}
    assert list(stages) == ["tokenizer", "context", "chat", "tts", "vocoder"]
    assert all(each.output_count > 0 for each in stages.values())
    first = finished.latency.time_to_first_audio.ToNanoseconds()
    assert stages["vocoder"].first_output_offset.ToNanoseconds() <= first
    assert first <= finished.latency.total.ToNanoseconds()
    assert (
        stages["tokenizer"].end_offset.ToNanoseconds()
        <= stages["chat"].start_offset.ToNanoseconds()
    )


async def test_a_written_question_needs_no_tokenizer_and_text_only_no_speech(gateway):
    responses = await ask(gateway, text="how are you", text_only=True)
    assert {each.WhichOneof("event") for each in responses} == {"started", "text_delta", "finished"}
    assert responses[-1].finished.heard_text == "how are you"
    stages = gateway.stages
    assert stages.tokenizer.calls == stages.tts.calls == stages.vocoder.calls == 0


async def test_a_question_follows_the_history_of_its_session(gateway):
    first = await ask(gateway, text="my name is Ada", text_only=True)
    session = first[0].started.session
    await ask(gateway, text="what is my name", session=session, text_only=True)
    prompt = gateway.stages.chat.requests[-1].messages
    words = [each.parts[0].text for each in prompt]
    assert words[1:] == ["my name is Ada", first[-1].finished.answer_text, "what is my name"]
    assert words[0] == gateway.settings.system_prompt


async def test_a_persona_of_the_question_stands_in_for_the_session_s(gateway):
    session = (await ask(gateway, text="hello", text_only=True))[0].started.session
    config = conversation_pb2.ConversationConfig(system_prompt="You are a pirate.")
    await ask(gateway, text="hello", session=session, config=config, text_only=True)
    prompt = gateway.stages.chat.requests[-1].messages
    system = [each.parts[0].text for each in prompt if each.role == message_pb2.ROLE_SYSTEM]
    assert system == ["You are a pirate."]


async def test_a_function_call_ends_the_answer(gateway):
    function = conversation_pb2.FunctionDeclaration(name="weather", description="Tells it.")
    config = conversation_pb2.ConversationConfig(functions=[function])
    responses = await ask(gateway, text="how is the weather", config=config)
    assert [each.WhichOneof("event") for each in responses] == [
        "started",
        "function_call",
        "finished",
    ]
    call = responses[1].function_call
    assert (call.name, dict(call.arguments)) == ("weather", {"city": "Jena"})


async def test_a_voice_that_nobody_has_is_refused_before_anything_is_said(gateway):
    config = conversation_pb2.ConversationConfig(voice="nobody")
    async with rpc_fails("VOICE_UNKNOWN"):
        # The first thing that comes is the refusal.
        await gateway.speech.Ask(speech_pb2.AskRequest(text="hi", config=config)).read()
    assert not gateway.stages.chat.requests
    assert not gateway.stages.context.turns
    silent = await ask(gateway, text="hi", config=config, text_only=True)
    assert silent[-1].finished.answer_text


async def test_a_text_for_which_tts_has_no_tokens_is_answered_in_silence(gateway):
    gateway.stages.tts.groups = 0
    responses = await ask(gateway, audio=recording(1))
    assert "audio" not in {each.WhichOneof("event") for each in responses}
    finished = responses[-1].finished
    assert finished.answer_text
    assert finished.status == conversation_pb2.RESPONSE_STATUS_COMPLETED
    (turn,) = gateway.stages.context.turns[responses[0].started.session].values()
    assert turn.generated_text == finished.answer_text
    await gateway.stages.idle()


async def test_twenty_concurrent_answers_are_not_mixed_up(gateway):
    questions = [recording(number) for number in range(20)]
    answers = await asyncio.gather(*(ask(gateway, audio=each) for each in questions))
    texts = [each[-1].finished.answer_text for each in answers]
    assert texts == [expected_answer(each.content) for each in questions]
    assert len(set(texts)) == 20
    for question, answer in zip(questions, answers, strict=True):
        alone = await ask(gateway, audio=question)
        assert sound_of(alone) == sound_of(answer)
        (turn,) = gateway.stages.context.turns[answer[0].started.session].values()
        assert turn.heard_text == answer[-1].finished.answer_text


def sound_of(responses) -> bytes:
    return b"".join(each.audio.content for each in responses)


async def test_a_client_that_vanishes_stops_every_stage_and_leaves_a_cancelled_turn(gateway):
    gateway.stages.chat.gate.clear()
    call = gateway.speech.Ask(speech_pb2.AskRequest(audio=recording(4)))
    session = (await call.read()).started.session
    while (await call.read()).WhichOneof("event") != "audio":
        pass
    assert gateway.stages.chat.running == 1
    left = time.monotonic()
    call.cancel()
    await gateway.stages.idle()
    assert time.monotonic() - left < 1
    async with asyncio.timeout(2):
        while True:
            (turn,) = gateway.stages.context.turns[session].values()
            if turn.status == context_pb2.TURN_STATUS_CANCELLED:
                break
            await asyncio.sleep(0.005)
    assert turn.generated_text.startswith(turn.heard_text)
    gateway.stages.chat.gate.set()
    assert (await ask(gateway, audio=recording(5)))[-1].WhichOneof("event") == "finished"


async def test_a_deadline_of_one_millisecond_ends_cleanly(gateway):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in gateway.speech.Ask(speech_pb2.AskRequest(audio=recording(6)), timeout=0.001):
            pass
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await gateway.stages.idle()
    assert (await ask(gateway, text="next", text_only=True))[-1].finished.answer_text


@pytest.mark.parametrize("stage", ["tokenizer", "chat", "tts", "vocoder", "context"])
async def test_a_stage_that_dies_before_its_first_output_is_called_once_more(gateway, stage):
    getattr(gateway.stages, stage).faults.append(Fault(before=True))
    question = recording(7)
    responses = await ask(gateway, audio=question)
    assert responses[-1].finished.answer_text == expected_answer(question.content)
    assert sound_of(responses)


@pytest.mark.parametrize("stage", ["tokenizer", "chat", "tts", "vocoder", "context"])
async def test_a_stage_that_stays_dead_is_a_typed_error_and_the_next_question_works(gateway, stage):
    getattr(gateway.stages, stage).faults.extend([Fault(before=True)] * 2)
    async with rpc_fails("STAGE_LOST") as raised:
        await ask(gateway, audio=recording(8))
    assert raised.error.metadata["stage"] == stage
    assert raised.error.retry_after > 0
    await gateway.stages.idle()
    assert (await ask(gateway, audio=recording(8)))[-1].WhichOneof("event") == "finished"


@pytest.mark.parametrize("reason", ["REDIS_UNAVAILABLE", "REDIS_REFUSES_WRITES"])
async def test_a_stage_that_cannot_serve_is_told_as_lost_with_its_own_reason(gateway, reason):
    refusal = Unavailable("not now", reason=reason, retry_after=2.0)
    gateway.stages.context.faults.extend([Fault(refusal=refusal)] * 2)
    async with rpc_fails("STAGE_LOST") as raised:
        await ask(gateway, audio=recording(8))
    assert raised.error.metadata["stage"] == "context"
    assert raised.error.metadata["cause"] == reason
    assert raised.error.retry_after == 2.0


@pytest.mark.parametrize("stage", ["chat", "tts", "vocoder"])
async def test_a_stage_that_dies_mid_reply_fails_the_turn_as_far_as_it_was_heard(gateway, stage):
    getattr(gateway.stages, stage).faults.append(Fault(after=True))
    async with rpc_fails("STAGE_LOST") as raised:
        await ask(gateway, audio=recording(9))
    assert raised.error.metadata["stage"] == stage
    ((turn,),) = [each.values() for each in gateway.stages.context.turns.values()]
    assert turn.status == context_pb2.TURN_STATUS_FAILED
    assert turn.generated_text.startswith(turn.heard_text)


@pytest.mark.parametrize("stage", ["tokenizer", "chat", "tts", "vocoder", "context"])
async def test_a_stage_that_is_not_there_is_a_typed_error(gateway, stage):
    await gateway.stages.servers[stage].stop()
    async with rpc_fails("STAGE_LOST") as raised:
        await ask(gateway, audio=recording(10))
    assert raised.error.metadata["stage"] == stage
    gateway.stages.servers[stage].stop = _nothing


async def _nothing():
    pass
