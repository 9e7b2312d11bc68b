"""The engine without models gives as many codes as the real one, at the same moments."""

from random import Random

import numpy as np
import pytest
from parley_core.errors import ResourceExhausted
from parley_core.pacing import PaceSettings
from parley_tokenizer.engine.simulator import SimulatorEngine
from parley_tokenizer.segments import SegmentPlan
from parley_tokenizer.stream import TokenStream

pytestmark = pytest.mark.unit

BLOCK = 3840


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


async def counts(engine, wave: np.ndarray) -> list[tuple[int, int]]:
    """Codes of both branches from each block, from the end, and from the same audio at once."""
    stream = engine.open()
    whole = len(wave) // BLOCK * BLOCK
    found = [await stream.step(wave[at : at + BLOCK]) for at in range(0, whole, BLOCK)]
    found.append(await stream.finish(wave[whole:]))
    for at in range(0, whole, BLOCK):
        await stream.step(wave[at : at + BLOCK])
    found.append(await stream.drain())
    stream.close()
    found.append(await engine.encode(wave))
    return [(len(codes.linguistic), len(codes.semantic)) for codes in found]


async def test_codes_come_as_many_and_when_the_models_would_give_them(engine):
    simulator = SimulatorEngine()
    for samples in (0, 479, 641, 1000, 1440, 3839, 3841, 23041, 80300):
        wave = noise(samples)
        assert await counts(simulator, wave) == await counts(engine, wave), samples


async def codes_of(simulator: SimulatorEngine, wave: np.ndarray) -> list[int]:
    stream = TokenStream(simulator.open(), block_samples=BLOCK, sample_rate=16000)
    chunks = [chunk async for chunk in stream.feed(wave)]
    chunks += [chunk async for chunk in stream.finish()]
    stream.close()
    return [each for chunk in chunks for each in chunk.ids]


async def test_codes_follow_the_audio_and_the_seed():
    first, other = (SimulatorEngine(PaceSettings(seed=seed)) for seed in (1, 2))
    wave = noise(40000)
    found = await codes_of(first, wave)
    assert found == await codes_of(first, wave)
    assert found != await codes_of(other, wave)
    assert found != await codes_of(first, noise(40000, seed=1))


async def test_slots_are_bounded_and_given_back():
    simulator = SimulatorEngine(plan=SegmentPlan(), slots=1)
    stream = simulator.open()
    with pytest.raises(ResourceExhausted):
        simulator.open()
    stream.close()
    stream.close()
    assert simulator.running == 0
    simulator.open().close()


async def test_a_step_takes_its_time_and_a_recording_what_its_length_costs(monkeypatch):
    waited = []
    monkeypatch.setattr("parley_core.pacing.asyncio.sleep", _noting(waited))
    simulator = SimulatorEngine(PaceSettings(ttft=10.0, speed=2.0))
    await simulator.spend(Random(0), 16000)
    assert waited == [pytest.approx(10.5, abs=0.1)]


def _noting(waited: list[float]):
    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    return sleep
