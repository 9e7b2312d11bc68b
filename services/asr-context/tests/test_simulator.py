import numpy as np
import pytest
from parley_asr_context.engine.simulator import SimulatedRecognizer
from parley_core.pacing import PaceSettings

pytestmark = pytest.mark.unit


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * 16000))
    return (0.1 * noise).astype(np.float32)


async def test_words_follow_the_audio_and_the_seed_and_not_its_packets():
    engine = SimulatedRecognizer()
    said = await engine.recognize(speech(2.6))
    assert len(said.words) == 6
    assert said.duration == pytest.approx(2.6)
    assert (said.words[0].start, said.words[-1].end) == (0.0, pytest.approx(2.6))
    stream = engine.stream()
    added = [await stream.accept(part) for part in np.array_split(speech(2.6), 20)]
    assert sum(added) == 5
    assert stream.transcript().stable == " ".join(word.text for word in said.words[:4])
    assert await stream.finish() == said == await stream.finish()
    assert (await SimulatedRecognizer(PaceSettings(seed=1)).recognize(speech(2.6))) != said


async def test_silence_has_no_words():
    engine = SimulatedRecognizer()
    assert await engine.transcribe(np.zeros(16000, np.float32)) == ""
    assert await engine.transcribe(np.zeros(0, np.float32)) == ""
    mixed = np.concatenate([speech(1.0), np.zeros(16000, np.float32), speech(0.5, 1)])
    assert [word.start for word in (await engine.recognize(mixed)).words] == [0.0, 0.5, 2.0]


async def test_each_block_takes_its_time(monkeypatch):
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("parley_core.pacing.asyncio.sleep", sleep)
    await SimulatedRecognizer(PaceSettings(ttft=10, speed=2)).recognize(speech(1.3))
    assert sum(waited) == pytest.approx(2 * (10 + 0.3), abs=0.1)
