"""The engine without models cuts and counts as the real one does."""

import asyncio

import numpy as np
import pytest
from material import spoken, stream_alone, voice, whole_alone
from parley_core.errors import FailedPrecondition, InvalidArgument, OutOfRange, Unavailable
from parley_core.pacing import PaceSettings
from parley_vocoder.contract import DecodeRequest, FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.simulator import SimulatorEngine
from parley_vocoder.engine.torch_engine import EngineSettings

pytestmark = pytest.mark.unit


def simulator(decoder: Decoder, **pace) -> SimulatorEngine:
    return SimulatorEngine(
        decoder.config, [FlowModel.COMMON], EngineSettings(), PaceSettings(**pace)
    )


async def play(engine, request, ids):
    async with engine.open(request) as stream:
        for at in range(0, len(ids), 5):
            await stream.push(ids[at : at + 5])
        stream.end()
        return [chunk async for chunk in stream], stream.usage


async def test_chunks_are_as_long_as_those_of_the_models(decoder: Decoder):
    engine = simulator(decoder)
    for groups in (1, 4, 11):
        chunks, usage = await play(engine, DecodeRequest(voice()), spoken(groups))
        real = stream_alone(decoder, voice(), spoken(groups), seed=0)
        shape = [(len(each.samples), each.start, each.final) for each in chunks]
        assert shape == [(len(each.samples), each.start, each.final) for each in real]
        assert usage.samples == sum(len(each.samples) for each in chunks)
    (whole,), _ = await play(engine, DecodeRequest(voice(), whole=True), spoken(4))
    assert len(whole.samples) == len(whole_alone(decoder, voice(), spoken(4), 0).samples)
    assert engine.stats().running_requests == 0


async def test_sound_follows_the_seeds_without_a_click_at_the_joins(decoder: Decoder):
    async def sound(engine, seed):
        chunks, _ = await play(engine, DecodeRequest(voice(), seed=seed), spoken(12))
        return np.concatenate([each.samples for each in chunks])

    first = await sound(simulator(decoder), 1)
    np.testing.assert_array_equal(first, await sound(simulator(decoder), 1))
    assert not np.array_equal(first, await sound(simulator(decoder), 2))
    assert not np.array_equal(first, await sound(simulator(decoder, seed=3), 1))
    assert np.abs(np.diff(first)).max() < 0.01


async def test_windows_take_their_time(decoder: Decoder, monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr("parley_core.pacing.asyncio.sleep", sleep)
    chunks, usage = await play(simulator(decoder, ttft=10), DecodeRequest(voice()), spoken(9))
    assert waited == [pytest.approx(10 * (at + 1), abs=0.1) for at in range(len(chunks))]
    assert usage.compute_seconds == pytest.approx(10 * len(chunks), abs=0.1)


async def test_what_the_engine_refuses_is_refused(decoder: Decoder):
    engine = simulator(decoder)
    with pytest.raises(FailedPrecondition, match="MUSIC is not loaded"):
        engine.open(DecodeRequest(voice(), FlowModel.MUSIC))
    async with engine.open(DecodeRequest(voice())) as stream:
        with pytest.raises(InvalidArgument, match="5120 at position 1"):
            await stream.push([1, 5120])
        with pytest.raises(InvalidArgument, match="no tokens"):
            stream.end()
        with pytest.raises(OutOfRange):
            await stream.push([0] * 25_001)


async def test_leaving_the_engine_fails_whoever_waits(decoder: Decoder):
    async with simulator(decoder) as engine:
        stream = engine.open(DecodeRequest(voice()))
        waiting = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await waiting
