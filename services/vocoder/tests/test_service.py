import asyncio
from collections.abc import AsyncIterator, Callable

import grpc.aio
import numpy as np
import pytest
from material import joined, spoken, stream_alone, voice, whole_alone
from parley.audio.v1 import audio_pb2
from parley.vocoder.v1 import vocoder_pb2, vocoder_pb2_grpc
from parley_core.audio import float_to_pcm16
from parley_core.errors import Code
from parley_core.testing import exchange, rpc_fails, running_server
from parley_vocoder.contract import FlowModel, VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import EngineSettings, TorchEngine
from parley_vocoder.service import FULL_NAME, VocoderService

pytestmark = pytest.mark.contract

Stub = vocoder_pb2_grpc.VocoderServiceStub
Request = vocoder_pb2.StreamingDecodeRequest


@pytest.fixture
async def engine(decoder: Decoder) -> AsyncIterator[TorchEngine]:
    settings = EngineSettings(max_tokens=500, max_whole_tokens=100)
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}, settings) as engine:
        await engine.warm_up()
        yield engine


@pytest.fixture
async def stub(engine: TorchEngine) -> AsyncIterator[Stub]:
    register = vocoder_pb2_grpc.add_VocoderServiceServicer_to_server
    async with running_server(register, VocoderService(engine, 10.0), FULL_NAME) as channel:
        yield vocoder_pb2_grpc.VocoderServiceStub(channel)


def wire(conditioning: VoiceConditioning) -> audio_pb2.VoiceConditioning:
    return audio_pb2.VoiceConditioning(
        prompt_tokens=conditioning.prompt_tokens.tolist(),
        prompt_mel=conditioning.prompt_mel.astype("<f4").tobytes(),
        mel_bins=80,
        speaker_embedding=conditioning.embedding.tolist(),
    )


def setup(seed: int = 0, prompt_groups: int = 2, **extra: int) -> vocoder_pb2.DecodeSetup:
    conditioning = wire(voice(prompt_groups, seed))
    return vocoder_pb2.DecodeSetup(voice=conditioning, seed=seed, **extra)


def tokens(ids: list[int]) -> Request:
    return Request(tokens=vocoder_pb2.TokenChunk(ids=ids))


END = Request(end_of_tokens=vocoder_pb2.EndOfTokens())


async def stream(stub: Stub, *requests: Request) -> list[vocoder_pb2.StreamingDecodeResponse]:
    return await exchange(stub.StreamingDecode(), requests)


def groups(ids: list[int], size: int = 5) -> list[Request]:
    return [tokens(ids[at : at + size]) for at in range(0, len(ids), size)]


def pcm(responses: list[vocoder_pb2.StreamingDecodeResponse]) -> bytes:
    return b"".join(response.audio.content for response in responses)


async def test_a_stream_says_its_format_then_sounds_then_counts(
    stub: Stub, decoder: Decoder
) -> None:
    ids = spoken(12)
    ready, *audio, end = await stream(stub, Request(setup=setup(3)), *groups(ids), END)
    assert ready.ready.format == audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=22050, channel_count=1
    )
    expected = joined(stream_alone(decoder, voice(2, 3), ids, seed=3))
    heard = np.frombuffer(pcm(audio), "<i2")
    assert np.abs(heard - np.frombuffer(float_to_pcm16(expected), "<i2")).max() <= 3
    assert end.finished.sample_count == len(expected) == decoder.clock.frames(60) * 256
    assert end.finished.compute_time.ToTimedelta().total_seconds() > 0
    position = 0
    for response in audio:
        offset = response.audio.start_offset.ToNanoseconds() / 1e9
        assert offset == pytest.approx(position / 22050, abs=1e-8)
        position += len(response.audio.content) // 2
    assert end.finished.audio_duration.ToNanoseconds() / 1e9 == pytest.approx(
        position / 22050, abs=1e-8
    )


async def test_sound_comes_before_the_tokens_end(stub: Stub) -> None:
    call = stub.StreamingDecode()
    await call.write(Request(setup=setup()))
    await call.write(tokens(spoken(4)))
    assert (await call.read()).WhichOneof("event") == "ready"
    assert (await call.read()).audio.content
    await call.write(END)
    await call.done_writing()
    rest = []
    while (response := await call.read()) != grpc.aio.EOF:
        rest.append(response.WhichOneof("event"))
    assert rest == ["audio", "finished"]


async def test_decode_is_the_offline_sound(stub: Stub, decoder: Decoder) -> None:
    ids = spoken(6)
    response = await stub.Decode(
        vocoder_pb2.DecodeRequest(setup=setup(7), tokens=vocoder_pb2.TokenChunk(ids=ids))
    )
    expected = whole_alone(decoder, voice(2, 7), ids, 7).samples
    heard = np.frombuffer(response.content, "<i2")
    assert np.abs(heard - np.frombuffer(float_to_pcm16(expected), "<i2")).max() <= 3
    assert response.format.sample_rate_hertz == 22050


async def test_concurrent_streams_equal_their_solo_runs(stub: Stub) -> None:
    def calls() -> list[tuple[Request, list[Request]]]:
        return [
            (Request(setup=setup(seed, prompt_groups=seed)), groups(spoken(5 + seed, seed)))
            for seed in range(6)
        ]

    alone = [pcm(await stream(stub, first, *rest, END)) for first, rest in calls()]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(stub, first, *rest, END)) for first, rest in calls()]
    for task, expected in zip(tasks, alone, strict=True):
        heard = np.frombuffer(pcm(task.result()), "<i2").astype(int)
        assert np.abs(heard - np.frombuffer(expected, "<i2")).max() <= 4


async def test_a_client_that_vanishes_frees_the_engine(stub: Stub, engine: TorchEngine) -> None:
    call = stub.StreamingDecode()
    await call.write(Request(setup=setup()))
    await call.write(tokens(spoken(60)))
    await call.read()
    await call.read()
    assert engine.stats().running_requests == 1
    call.cancel()
    async with asyncio.timeout(1):
        while engine.stats().running_requests:
            # The next request works; by its end the cancel has arrived.
            await stream(stub, Request(setup=setup()), tokens(spoken(1)), END)
    assert engine.stats().running_requests == 0


async def test_a_deadline_too_short_leaves_nothing_behind(stub: Stub, engine: TorchEngine) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Decode(
            vocoder_pb2.DecodeRequest(setup=setup(), tokens=vocoder_pb2.TokenChunk(ids=spoken(20))),
            timeout=0.001,
        )
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await stream(stub, Request(setup=setup()), tokens(spoken(1)), END)
    assert engine.stats().running_requests == 0


def changed(change: Callable[[vocoder_pb2.DecodeSetup], object]) -> Request:
    edited = setup()
    change(edited)
    return Request(setup=edited)


def lengthen(edited: vocoder_pb2.DecodeSetup) -> None:
    edited.voice.prompt_mel = bytes(320 * 900)


def half_a_frame(edited: vocoder_pb2.DecodeSetup) -> None:
    edited.voice.prompt_mel += bytes(160)


def not_numbers(edited: vocoder_pb2.DecodeSetup) -> None:
    edited.voice.prompt_mel = np.full((20, 80), np.nan, "<f4").tobytes()


GOOD = Request(setup=setup())
GROUP = tokens([1, 2, 1024, 1025, 1026])


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "SETUP_MISSING"),
        ([GROUP, END], "SETUP_MISSING"),
        ([Request()], "SETUP_MISSING"),
        ([GOOD, GOOD], "SETUP_REPEATED"),
        ([GOOD, Request()], "EVENT_MISSING"),
        ([GOOD, GROUP], "END_MISSING"),
        ([GOOD, END], "NO_TOKENS"),
        ([GOOD, tokens([]), END], "NO_TOKENS"),
        ([GOOD, tokens([1, 2, 1024, 1025, 5120]), END], "TOKEN_OUT_OF_RANGE"),
        ([GOOD, tokens([1, 2, 3, 1025, 1026]), END], "TOKEN_ORDER"),
        ([GOOD, tokens([1, 2, 1024]), END], "TOKEN_GROUP_INCOMPLETE"),
        ([GOOD, *groups(spoken(101)), END], "TOO_MANY_TOKENS"),
        ([changed(lambda s: s.ClearField("voice"))], "VOICE_MISSING"),
        ([changed(lambda s: setattr(s, "flow_model", 9))], "FLOW_MODEL_UNKNOWN"),
        ([changed(lambda s: setattr(s, "flow_model", 2))], "FLOW_MODEL_NOT_LOADED"),
        ([changed(lambda s: setattr(s.voice, "mel_bins", 100))], "VOICE_UNUSABLE"),
        ([changed(lambda s: s.voice.ClearField("speaker_embedding"))], "VOICE_UNUSABLE"),
        ([changed(lambda s: s.voice.ClearField("prompt_mel"))], "VOICE_UNUSABLE"),
        ([changed(lambda s: s.voice.prompt_tokens.append(5120))], "TOKEN_OUT_OF_RANGE"),
        ([changed(half_a_frame)], "VOICE_UNUSABLE"),
        ([changed(not_numbers)], "VOICE_UNUSABLE"),
        ([changed(lengthen)], "PROMPT_TOO_LONG"),
        ([changed(lambda s: s.voice.prompt_tokens.extend([0] * 500))], "PROMPT_TOO_LONG"),
    ],
)
async def test_a_wrong_stream_gets_its_typed_error_and_leaves_nothing(
    stub: Stub, engine: TorchEngine, requests: list[Request], reason: str
) -> None:
    async with rpc_fails(reason) as raised:
        await stream(stub, *requests)
    assert raised.error.code in {
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
    }
    assert engine.stats().running_requests == 0
    assert pcm(await stream(stub, GOOD, GROUP, END))


async def test_a_voice_of_the_longest_recording_speaks_with_the_margins_of_its_trimming(
    stub: Stub,
) -> None:
    # 10 s that are speech from end to end: trimmed to 10 s + 4320 of 16000 samples, whole groups.
    longest = setup(prompt_groups=86)
    longest.voice.prompt_mel = longest.voice.prompt_mel[: 320 * 861]
    assert pcm(await stream(stub, Request(setup=longest), GROUP, END))
    longest.voice.prompt_tokens.extend(spoken(2))
    async with rpc_fails("PROMPT_TOO_LONG") as raised:
        await stream(stub, Request(setup=longest), GROUP, END)
    assert "prompt_tokens lasts 10.6 s, at most 10.5 s" in str(raised.error)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (vocoder_pb2.DecodeRequest(), "SETUP_MISSING"),
        (vocoder_pb2.DecodeRequest(setup=setup()), "NO_TOKENS"),
        (
            vocoder_pb2.DecodeRequest(
                setup=setup(), tokens=vocoder_pb2.TokenChunk(ids=[1024, 2, 1024, 1025, 1026])
            ),
            "TOKEN_ORDER",
        ),
        (
            vocoder_pb2.DecodeRequest(setup=setup(), tokens=vocoder_pb2.TokenChunk(ids=spoken(21))),
            "TOO_MANY_TOKENS",
        ),
    ],
)
async def test_a_wrong_decode_gets_its_typed_error(
    stub: Stub, request_: vocoder_pb2.DecodeRequest, reason: str
) -> None:
    async with rpc_fails(reason):
        await stub.Decode(request_)


async def test_a_bad_chunk_in_the_middle_ends_the_stream(stub: Stub, engine: TorchEngine) -> None:
    call = stub.StreamingDecode()
    await call.write(GOOD)
    await call.write(tokens(spoken(4)))
    await call.read()
    assert (await call.read()).audio.content
    await call.write(tokens([0] * 5))
    async with rpc_fails("TOKEN_ORDER"):
        while await call.read() != grpc.aio.EOF:
            pass
    assert engine.stats().running_requests == 0
