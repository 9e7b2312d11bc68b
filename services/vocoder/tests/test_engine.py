import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from material import joined, spoken, voice
from parley_core.errors import (
    Internal,
    InvalidArgument,
    Unavailable,
)
from parley_vocoder.contract import DecodeRequest, FlowModel, Usage, VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import EngineSettings, TorchEngine

pytestmark = pytest.mark.unit


@pytest.fixture
async def engine(decoder: Decoder) -> AsyncIterator[TorchEngine]:
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}) as engine:
        await engine.warm_up()
        yield engine


async def play(
    engine: TorchEngine, request: DecodeRequest, ids: list[int], step: int = 5
) -> tuple[np.ndarray, Usage]:
    async with engine.open(request) as stream:
        for at in range(0, len(ids), step):
            await stream.push(ids[at : at + step])
        stream.end()
        return joined([chunk async for chunk in stream]), stream.usage


async def test_concurrent_streams_share_their_steps(engine: TorchEngine) -> None:
    requests = [DecodeRequest(voice(2 * k, k), seed=k) for k in range(6)]
    tokens = [spoken(5 + 2 * k, k) for k in range(6)]
    before = engine.stats()
    async with asyncio.TaskGroup() as group:
        for request, ids in zip(requests, tokens, strict=True):
            group.create_task(play(engine, request, ids))
    after = engine.stats()
    assert (after.rows - before.rows) / (after.steps - before.steps) > 1.5


async def test_leaving_a_stream_frees_it_at_once(engine: TorchEngine) -> None:
    async with engine.open(DecodeRequest(voice())) as stream:
        await stream.push(spoken(40))
        await anext(aiter(stream))
        assert engine.stats().running_requests == 1
    assert engine.stats().running_requests == 0
    steps = engine.stats().steps
    await play(engine, DecodeRequest(voice()), spoken(1))
    # One window for the newcomer, and at most a step that was under way.
    assert engine.stats().steps - steps <= 11


async def test_a_cancelled_task_leaves_nothing_behind(engine: TorchEngine) -> None:
    started = asyncio.Event()

    async def endless() -> None:
        async with engine.open(DecodeRequest(voice())) as stream:
            await stream.push(spoken(40))
            async for _ in stream:
                started.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(endless())
        await started.wait()
        task.cancel()
    assert engine.stats().running_requests == 0


async def test_a_stream_nobody_reads_rests(decoder: Decoder) -> None:
    settings = EngineSettings(max_ahead=2)
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}, settings) as engine:
        await engine.warm_up()
        async with engine.open(DecodeRequest(voice())) as unread:
            await unread.push(spoken(40))
            while unread._chunks.qsize() < 2:
                await play(engine, DecodeRequest(voice()), spoken(1))
            # Another stream's life is time enough to run too far ahead.
            await play(engine, DecodeRequest(voice()), spoken(4))
            assert unread._chunks.qsize() == 2
            assert engine.stats().active_windows == 0
            unread.end()
            chunks = [chunk async for chunk in unread]
        assert chunks[-1].final


async def test_first_sound_is_not_held_up_by_streams_that_are_ahead(engine: TorchEngine) -> None:
    async with engine.open(DecodeRequest(voice())) as ahead:
        await ahead.push(spoken(100))
        chunks = aiter(ahead)
        for _ in range(3):
            await anext(chunks)
        before = engine.stats()
        async with engine.open(DecodeRequest(voice())) as newcomer:
            await newcomer.push(spoken(4))
            await anext(aiter(newcomer))
        after = engine.stats()
        # The newcomer's ten steps, one that was under way, one after: none shared with the others.
        assert after.steps - before.steps <= 12


async def test_a_failure_ends_its_own_stream_only(
    engine: TorchEngine, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil = decoder.voice

    def fail_for_one(conditioning: VoiceConditioning, *limit: int) -> object:
        if conditioning.embedding[0] == 13:
            raise MemoryError
        return spoil(conditioning, *limit)

    monkeypatch.setattr(decoder, "voice", fail_for_one)
    unlucky = voice()
    unlucky.embedding[0] = 13
    async with engine.open(DecodeRequest(voice())) as other:
        with pytest.raises(Internal, match="failed on this request"):
            await play(engine, DecodeRequest(unlucky), spoken(4))
        await other.push(spoken(4))
        other.end()
        assert [chunk async for chunk in other][-1].final
    assert engine.stats().running_requests == 0


async def test_stopping_the_engine_ends_open_streams(decoder: Decoder) -> None:
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}) as engine:
        await engine.warm_up()
        stream = engine.open(DecodeRequest(voice()))
        await stream.push(spoken(1))
    with pytest.raises(Unavailable, match="stopping"):
        await anext(aiter(stream))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt_tokens": np.array([5120])}, "outside 0..5119"),
        ({"prompt_mel": np.zeros((4, 79), np.float32)}, r"expected \[F, 80\]"),
        ({"prompt_mel": np.zeros((0, 80), np.float32)}, "come together"),
        ({"prompt_mel": np.full((4, 80), np.nan, np.float32)}, "not finite"),
        ({"embedding": np.zeros(192, np.float32)}, "is zero"),
        ({"embedding": np.ones(191, np.float32)}, r"expected \[192\]"),
    ],
)
def test_a_voice_no_decoder_can_use_names_its_field(
    changed: dict[str, np.ndarray], message: str
) -> None:
    good = voice(2)
    parts = {
        "prompt_tokens": good.prompt_tokens,
        "prompt_mel": good.prompt_mel,
        "embedding": good.embedding,
    }
    with pytest.raises(InvalidArgument, match=message) as caught:
        VoiceConditioning(**{**parts, **changed})  # type: ignore[arg-type]
    assert caught.value.field
