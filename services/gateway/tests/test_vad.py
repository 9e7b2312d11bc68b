"""Voice activity detection with the real model on made-up speech."""

import asyncio

import numpy as np
import pytest
from gateway_harness import silence, vowels
from parley_gateway.microphone import Microphone
from parley_gateway.vad import FRAME, SileroVad, SpeechDetector, VadThresholds
from parley_gateway.vad_batch import VadBatch

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model():
    return SileroVad()


def alone(model):
    """Judges frames one by one."""

    async def judge(window, state):
        return model.probability(window, state)

    return judge


async def edges(model, audio, packet=320, **thresholds):
    detector = SpeechDetector(alone(model), VadThresholds(**thresholds))
    found = []
    for begin in range(0, len(audio), packet):
        found += await detector.feed(audio[begin : begin + packet])
    return found


async def test_speech_is_found_where_it_is(model):
    audio = np.concatenate([silence(1), vowels(1.5), silence(1), vowels(1, pitch=180), silence(1)])
    found = await edges(model, audio)
    assert [each.started for each in found] == [True, False, True, False]
    for edge, expected in zip(found, [1.0, 2.5, 3.5, 4.5], strict=True):
        assert edge.offset == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("packet", [1, 100, 512, 5000, 10**6])
async def test_edges_do_not_depend_on_the_packets(model, packet):
    audio = np.concatenate([silence(0.5), vowels(0.8), silence(0.5)])
    assert await edges(model, audio, packet) == await edges(model, audio)


async def test_noise_hum_and_silence_are_no_speech(model):
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    hum = (0.3 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 16_000)).astype(np.float32)
    assert [await edges(model, each) for each in (noise, hum, silence(3))] == [[], [], []]


async def test_streams_that_are_judged_together_do_not_share_state(model):
    audio = np.concatenate([silence(0.5), vowels(0.8), silence(0.5)])
    others = [np.random.default_rng(seed).normal(0, 0.3, 20_000 + 700 * seed) for seed in range(5)]
    together = VadBatch(model)
    async with asyncio.TaskGroup() as tasks:
        found = [
            tasks.create_task(SpeechDetector(together.probability).feed(each.astype(np.float32)))
            for each in (audio, *others)
        ]
    expected = await edges(model, audio)
    assert len(expected) == 2
    for edge, single in zip(found[0].result(), expected, strict=True):
        assert (edge.started, edge.offset) == (single.started, single.offset)
        assert edge.probability == pytest.approx(single.probability, abs=1e-4)


async def test_a_muted_microphone_is_not_judged_and_speech_behind_it_is_found(model):
    judged = 0

    async def judge(window, state):
        nonlocal judged
        judged += 1
        return model.probability(window, state)

    hiss = np.random.default_rng(0).normal(0, 1e-4, 160_000).astype(np.float32)
    detector = SpeechDetector(judge)
    assert await detector.feed(hiss) == []
    assert judged < 20
    start, stop = await detector.feed(np.concatenate([vowels(1.0), silence(1.0)]))
    assert (start.offset, stop.offset) == pytest.approx((10.0, 11.0), abs=0.1)


class Counting:
    """A model that notes how many frames came together, and fails when told."""

    def __init__(self):
        self.batches = []
        self.error = None

    def probabilities(self, frames):
        self.batches.append(len(frames))
        if self.error:
            raise self.error
        return [(0.0, state) for _, state in frames]


async def test_frames_that_are_ready_together_go_into_one_call():
    model = Counting()
    batch = VadBatch(model)
    frame = np.zeros(FRAME, np.float32)
    detectors = [SpeechDetector(batch.probability) for _ in range(7)]
    for _ in range(3):
        await asyncio.gather(*(each.feed(frame) for each in detectors))
    assert model.batches == [7, 7, 7]


async def test_a_stream_that_left_or_a_model_that_failed_hurts_nobody_else():
    model = Counting()
    batch = VadBatch(model)
    frame = np.zeros(FRAME, np.float32)
    leaving = asyncio.ensure_future(SpeechDetector(batch.probability).feed(frame))
    staying = asyncio.ensure_future(SpeechDetector(batch.probability).feed(frame))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == []
    model.error = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        await SpeechDetector(batch.probability).feed(frame)
    model.error = None
    assert await SpeechDetector(batch.probability).feed(frame) == []


class Scripted:
    """A model that says what it is told."""

    def __init__(self, probabilities):
        self.probabilities = iter(probabilities)

    def probability(self, window, state):
        return next(self.probabilities), state


async def scripted(probabilities, **thresholds):
    detector = SpeechDetector(alone(Scripted(probabilities)), VadThresholds(**thresholds))
    return await detector.feed(np.zeros(len(probabilities) * FRAME, np.float32))


async def test_a_click_shorter_than_the_shortest_speech_is_none():
    assert await scripted([0.9, 0.1, 0.9, 0.1, 0.0], min_speech_s=0.064) == []


async def test_probabilities_between_the_thresholds_change_nothing():
    speaking = [0.9] * 3 + [0.4] * 20
    (edge,) = await scripted(speaking, start=0.5, stop=0.35)
    assert edge.started
    assert await scripted([0.4] * 20, start=0.5, stop=0.35) == []


async def test_an_edge_lies_where_the_change_began_not_where_it_was_sure():
    frame = FRAME / 16_000
    start, stop = await scripted([0.0] * 5 + [0.9] * 10 + [0.0] * 10, min_silence_s=0.1)
    assert start.offset == pytest.approx(5 * frame)
    assert stop.offset == pytest.approx(15 * frame)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
async def test_the_microphone_hears_every_rate_and_gives_back_what_went_before(model, rate):
    from parley_core.audio import float_to_pcm16

    audio = np.concatenate([silence(0.5, rate=rate), vowels(0.8, rate=rate), silence(1, rate=rate)])
    microphone = Microphone(SpeechDetector(alone(model)), sample_rate=rate, channels=2, keep=0.6)
    pcm = float_to_pcm16(np.repeat(audio, 2))
    heard, found = b"", []
    for begin in range(0, len(pcm), 1764):
        heard += microphone.take(pcm[begin : begin + 1764])
        found += await microphone.detect()
    assert [each.started for each in found] == [True, False]
    assert found[0].offset == pytest.approx(0.5, abs=0.1)
    assert microphone.offset == pytest.approx(2.3, abs=0.05)
    begin = round((microphone.offset - 0.5) * 16_000) * 2
    assert microphone.since(microphone.offset - 0.5) == heard[begin:]
    assert len(microphone.since(0)) >= 0.6 * 32_000
    assert microphone.since(microphone.offset) == b""
