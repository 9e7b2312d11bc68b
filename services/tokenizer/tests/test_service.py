"""TokenizerService over a live gRPC server: every RPC, bad input, cancel, many streams at once."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

import grpc.aio
import numpy as np
import pytest
from parley.audio.v1 import audio_pb2
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley_core.audio import float_to_pcm16, wav_bytes
from parley_core.errors import Code
from parley_core.testing import exchange, rpc_fails, running_server
from parley_core.tokens import check_tokens, interleave
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.service import FULL_NAME, TokenizerService
from parley_tokenizer.settings import RequestLimits

pytestmark = pytest.mark.contract

Request = tokenizer_pb2.StreamingTokenizeRequest
Response = tokenizer_pb2.StreamingTokenizeResponse
Stub = tokenizer_pb2_grpc.TokenizerServiceStub

LIMITS = RequestLimits(max_recording_s=5, max_audio_message_bytes=64_000, idle_timeout_s=0.3)


@pytest.fixture
async def stub(engine: TokenizerEngine) -> AsyncIterator[Stub]:
    async with running_server(
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server,
        TokenizerService(engine, LIMITS),
        FULL_NAME,
    ) as channel:
        yield Stub(channel)


def pcm(seconds: float, seed: int = 0, rate: int = 16000) -> bytes:
    count = round(seconds * rate)
    rhythm = np.abs(np.sin(np.arange(count) * 2 * np.pi * 3 / rate + seed))
    noise = np.random.default_rng(seed).standard_normal(count)
    return float_to_pcm16(0.2 * noise * rhythm)


def pcm_format(rate: int = 16000, channels: int = 1) -> audio_pb2.AudioFormat:
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
        sample_rate_hertz=rate,
        channel_count=channels,
    )


def setup(rate: int = 16000, channels: int = 1) -> Request:
    stream_setup = tokenizer_pb2.StreamSetup(format=pcm_format(rate, channels))
    return Request(setup=stream_setup)


def flush(flush_id: str, end: bool = True) -> Request:
    return Request(flush=tokenizer_pb2.Flush(flush_id=flush_id, end_of_utterance=end))


def frames(audio: bytes, size: int) -> list[Request]:
    return [Request(audio=audio[at : at + size]) for at in range(0, len(audio), size)]


async def converse(stub: Stub, requests: Iterable[Request]) -> list[Response]:
    return await exchange(stub.StreamingTokenize(), requests)


def ids(responses: list[Response]) -> list[int]:
    return [each for response in responses for each in response.tokens.ids]


async def test_a_recording_becomes_the_engines_tokens(stub: Stub, engine: TokenizerEngine) -> None:
    audio = pcm(2.0)
    response = await stub.Tokenize(
        tokenizer_pb2.TokenizeRequest(format=pcm_format(), content=audio, keep_level=True)
    )
    wave = np.frombuffer(audio, "<i2").astype(np.float32) / 32768
    codes = await engine.encode(wave)
    assert list(response.tokens.ids) == interleave(codes.linguistic, codes.semantic)
    assert list(response.linguistic_codes) == list(codes.linguistic)
    assert list(response.semantic_codes) == list(codes.semantic)
    assert response.audio_duration.ToTimedelta() == timedelta(seconds=2)
    check_tokens(response.tokens.ids)
    assert len(response.tokens.ids) == 16 * 5


async def test_a_file_is_read_whatever_its_rate_and_channels(stub: Stub) -> None:
    stereo = np.stack([np.frombuffer(pcm(1.0, rate=8000), "<i2") / 32768.0] * 2)
    response = await stub.Tokenize(
        tokenizer_pb2.TokenizeRequest(
            format=audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER),
            content=wav_bytes(stereo, 8000),
        )
    )
    assert response.audio_duration.ToTimedelta() == timedelta(seconds=1)
    assert len(response.linguistic_codes) == 16
    assert len(response.semantic_codes) == 25


async def test_level_is_set_and_silence_trimmed_unless_told_otherwise(stub: Stub) -> None:
    quiet = np.frombuffer(pcm(1.0), "<i2").astype(np.float32) / 32768 * 0.02
    padded = float_to_pcm16(np.concatenate([np.zeros(16000), quiet, np.zeros(16000)]))
    request = tokenizer_pb2.TokenizeRequest(format=pcm_format(), content=padded)
    levelled = await stub.Tokenize(request)
    request.keep_level = True
    kept = await stub.Tokenize(request)
    request.keep_level, request.trim_silence = False, True
    trimmed = await stub.Tokenize(request)
    assert levelled.tokens != kept.tokens
    assert len(trimmed.tokens.ids) < len(levelled.tokens.ids)
    assert trimmed.audio_duration.ToTimedelta() < timedelta(seconds=1.4)


@pytest.mark.parametrize(
    ("given", "content", "reason", "field"),
    [
        (audio_pb2.AudioFormat(), b"\0\0", "AUDIO_ENCODING_UNSUPPORTED", "format.encoding"),
        (pcm_format(rate=4000), b"\0\0", "SAMPLE_RATE_UNSUPPORTED", "format.sample_rate_hertz"),
        (pcm_format(channels=9), b"\0\0", "CHANNEL_COUNT_UNSUPPORTED", "format.channel_count"),
        (pcm_format(channels=-1), b"\0\0", "CHANNEL_COUNT_UNSUPPORTED", "format.channel_count"),
        (pcm_format(), b"", "AUDIO_EMPTY", "content"),
        (pcm_format(), b"\0\0\0", "AUDIO_FRAME_MALFORMED", "content"),
        (pcm_format(channels=2), b"\0\0" * 3, "AUDIO_FRAME_MALFORMED", "content"),
        (pcm_format(rate=8000), bytes(16002 * 5), "AUDIO_TOO_LONG", "content"),
        (
            audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER),
            wav_bytes(np.zeros(16000), 16000)[:2000],
            "AUDIO_TRUNCATED",
            "content",
        ),
    ],
)
async def test_a_bad_recording_gets_its_error(
    stub: Stub, given: audio_pb2.AudioFormat, content: bytes, reason: str, field: str
) -> None:
    async with rpc_fails(reason) as failure:
        await stub.Tokenize(tokenizer_pb2.TokenizeRequest(format=given, content=content))
    assert failure.error.code is Code.INVALID_ARGUMENT
    assert failure.error.field == field


async def test_a_stream_answers_in_order(stub: Stub) -> None:
    audio = pcm(2.1)
    responses = await converse(
        stub,
        [
            setup(),
            *frames(audio[:40000], 640),
            flush("pause", end=False),
            *frames(audio[40000:], 640),
            flush("end"),
        ],
    )
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds[0] == "ready"
    assert kinds.count("ready") == 1
    ready = responses[0].ready
    assert ready.model_sample_rate_hertz == 16000
    assert ready.group_duration.ToTimedelta() == timedelta(milliseconds=120)
    assert ready.algorithmic_delay.ToTimedelta() == timedelta(seconds=1.4)
    pause = next(at for at, each in enumerate(responses) if each.flushed.flush_id == "pause")
    # 1.25 s are five whole blocks: ten groups.
    assert len(ids(responses[:pause])) == 10 * 5
    assert responses[pause].flushed.audio_duration.ToTimedelta() == timedelta(seconds=1.25)
    assert responses[-1].flushed.flush_id == "end"
    assert responses[-1].flushed.audio_duration.ToTimedelta() == timedelta(seconds=2.1)
    offset = timedelta()
    for response in responses:
        if response.WhichOneof("event") == "tokens":
            assert response.tokens.start_offset.ToTimedelta() == offset
            offset += timedelta(milliseconds=120) * (len(response.tokens.ids) // 5)
    check_tokens(ids(responses))
    assert len(ids(responses)) == 17 * 5


async def test_tokens_come_while_the_caller_still_speaks(stub: Stub) -> None:
    call = stub.StreamingTokenize()
    await call.write(setup())
    await call.write(Request(audio=pcm(1.9)))
    assert (await call.read()).WhichOneof("event") == "ready"
    assert len((await call.read()).tokens.ids) > 0
    call.cancel()


async def test_an_input_that_ends_without_flush_still_yields_its_tail(stub: Stub) -> None:
    audio = pcm(1.5)
    flushed = await converse(stub, [setup(), *frames(audio, 3200), flush("end")])
    ended = await converse(stub, [setup(), *frames(audio, 3200)])
    assert ids(ended) == ids(flushed)


async def test_utterances_of_one_stream_do_not_mix(stub: Stub) -> None:
    first, second = pcm(1.3, seed=1), pcm(1.7, seed=2)
    alone = await converse(stub, [setup(), *frames(second, 5000)])
    both = await converse(
        stub, [setup(), *frames(first, 5000), flush("a"), *frames(second, 5000), flush("b")]
    )
    turn = next(at for at, each in enumerate(both) if each.flushed.flush_id == "a")
    assert ids(both[turn:]) == ids(alone)
    assert both[turn + 1].tokens.start_offset.ToTimedelta() == timedelta(seconds=1.3)


@pytest.mark.parametrize(
    ("requests", "reason", "field"),
    [
        ([], "SETUP_MISSING", "setup"),
        ([Request()], "SETUP_MISSING", "setup"),
        ([Request(audio=b"\0\0")], "SETUP_MISSING", "setup"),
        ([flush("x")], "SETUP_MISSING", "setup"),
        ([setup(), setup()], "SETUP_REPEATED", "setup"),
        ([setup(), Request()], "EVENT_MISSING", None),
        ([setup(rate=7999)], "SAMPLE_RATE_UNSUPPORTED", "setup.format.sample_rate_hertz"),
        ([setup(channels=9)], "CHANNEL_COUNT_UNSUPPORTED", "setup.format.channel_count"),
        (
            [Request(setup=tokenizer_pb2.StreamSetup())],
            "AUDIO_ENCODING_UNSUPPORTED",
            "setup.format.encoding",
        ),
        ([setup(), Request(audio=b"")], "AUDIO_EMPTY", "audio"),
        ([setup(), Request(audio=b"\0\0\0")], "AUDIO_FRAME_MALFORMED", "audio"),
        ([setup(channels=2), Request(audio=b"\0\0")], "AUDIO_FRAME_MALFORMED", "audio"),
        ([setup(), Request(audio=bytes(64_002))], "AUDIO_TOO_LARGE", "audio"),
    ],
)
async def test_a_bad_stream_gets_its_error_and_the_next_one_works(
    stub: Stub,
    engine: TokenizerEngine,
    requests: list[Request],
    reason: str,
    field: str | None,
) -> None:
    async with rpc_fails(reason) as failure:
        await converse(stub, requests)
    assert failure.error.code is Code.INVALID_ARGUMENT
    assert failure.error.field == field
    assert engine.running == 0
    assert len(ids(await converse(stub, [setup(), Request(audio=pcm(1.0)), flush("end")]))) == 8 * 5


async def test_a_silent_caller_loses_its_slot(stub: Stub, engine: TokenizerEngine) -> None:
    call = stub.StreamingTokenize()
    await call.write(setup())
    assert (await call.read()).WhichOneof("event") == "ready"
    async with rpc_fails("STREAM_IDLE") as failure:
        await call.read()
        await call
    assert failure.error.code is Code.DEADLINE_EXCEEDED
    assert engine.running == 0


async def test_a_stream_too_many_is_refused_with_a_time_to_retry(
    stub: Stub, engine: TokenizerEngine
) -> None:
    held = [engine.open() for _ in range(8)]
    async with rpc_fails("SLOTS_EXHAUSTED") as failure:
        await converse(stub, [setup()])
    assert failure.error.code is Code.RESOURCE_EXHAUSTED
    assert failure.error.retry_after
    for each in held:
        each.close()
    assert (await converse(stub, [setup()]))[0].WhichOneof("event") == "ready"


async def test_a_cancelled_call_leaves_no_slot_in_use(stub: Stub, engine: TokenizerEngine) -> None:
    call = stub.StreamingTokenize()
    await call.write(setup())
    for _ in range(20):
        await call.write(Request(audio=pcm(1.9)))
    await call.read()
    assert engine.running == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    async with asyncio.timeout(2):
        while engine.running:  # noqa: ASYNC110 - the server side of a cancel tells nobody
            await asyncio.sleep(0.001)
    audio = pcm(1.5)
    assert ids(await converse(stub, [setup(), *frames(audio, 640)])) == ids(
        await converse(stub, [setup(), *frames(audio, 48000)])
    )


async def test_a_deadline_of_a_millisecond_ends_cleanly(
    stub: Stub, engine: TokenizerEngine
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Tokenize(
            tokenizer_pb2.TokenizeRequest(format=pcm_format(), content=pcm(4.9)), timeout=0.001
        )
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(2):
        while engine.running:  # noqa: ASYNC110 - the server side of a deadline tells nobody
            await asyncio.sleep(0.001)


async def test_concurrent_streams_get_the_codes_of_their_solo_runs(stub: Stub) -> None:
    calls = [
        [setup(rate), *frames(pcm(1.0 + 0.37 * n, seed=n, rate=rate), size), flush("end")]
        for n, (rate, size) in enumerate(
            [
                (16000, 640),
                (16000, 7000),
                (8000, 320),
                (44100, 1764),
                (48000, 1920),
                (16000, 60000),
                (24000, 960),
                (16000, 34),
            ]
        )
    ]
    solo = [ids(await converse(stub, requests)) for requests in calls]
    together = await asyncio.gather(*(converse(stub, requests) for requests in calls))
    assert [ids(responses) for responses in together] == solo
    assert all(solo)
