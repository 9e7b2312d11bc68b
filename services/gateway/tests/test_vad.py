"""Voice activity detection with the real model on made-up speech."""

import numpy as np
import pytest
from gateway_harness import silence, vowels
from parley_gateway.microphone import Microphone
from parley_gateway.vad import FRAME, SileroVad, SpeechDetector, VadThresholds

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model():
    return SileroVad()


def edges(model, audio, packet=320, **thresholds):
    detector = SpeechDetector(model, VadThresholds(**thresholds))
    found = []
    for begin in range(0, len(audio), packet):
        found += detector.feed(audio[begin : begin + packet])
    return found


def test_speech_is_found_where_it_is(model):
    audio = np.concatenate([silence(1), vowels(1.5), silence(1), vowels(1, pitch=180), silence(1)])
    found = edges(model, audio)
    assert [each.started for each in found] == [True, False, True, False]
    for edge, expected in zip(found, [1.0, 2.5, 3.5, 4.5], strict=True):
        assert edge.offset == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("packet", [1, 100, 512, 5000, 10**6])
def test_edges_do_not_depend_on_the_packets(model, packet):
    audio = np.concatenate([silence(0.5), vowels(0.8), silence(0.5)])
    assert edges(model, audio, packet) == edges(model, audio)


def test_noise_hum_and_silence_are_no_speech(model):
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    hum = (0.3 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 16_000)).astype(np.float32)
    assert [edges(model, each) for each in (noise, hum, silence(3))] == [[], [], []]


def test_streams_that_share_the_model_do_not_share_state(model):
    audio = np.concatenate([silence(0.5), vowels(0.8), silence(0.5)])
    alone = edges(model, audio)
    one, other = SpeechDetector(model), SpeechDetector(model)
    found = []
    for begin in range(0, len(audio), FRAME):
        found += one.feed(audio[begin : begin + FRAME])
        other.feed(np.random.default_rng(begin).normal(0, 0.3, FRAME).astype(np.float32))
    assert found == alone


class Scripted:
    """A model that says what it is told."""

    def __init__(self, probabilities):
        self.probabilities = iter(probabilities)

    def probability(self, window, state):
        return next(self.probabilities), state


def scripted(probabilities, **thresholds):
    detector = SpeechDetector(Scripted(probabilities), VadThresholds(**thresholds))
    return detector.feed(np.zeros(len(probabilities) * FRAME, np.float32))


def test_a_click_shorter_than_the_shortest_speech_is_none():
    assert scripted([0.9, 0.1, 0.9, 0.1, 0.0], min_speech_s=0.064) == []


def test_probabilities_between_the_thresholds_change_nothing():
    speaking = [0.9] * 3 + [0.4] * 20
    (edge,) = scripted(speaking, start=0.5, stop=0.35)
    assert edge.started
    assert scripted([0.4] * 20, start=0.5, stop=0.35) == []


def test_an_edge_lies_where_the_change_began_not_where_it_was_sure():
    frame = FRAME / 16_000
    start, stop = scripted([0.0] * 5 + [0.9] * 10 + [0.0] * 10, min_silence_s=0.1)
    assert start.offset == pytest.approx(5 * frame)
    assert stop.offset == pytest.approx(15 * frame)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_microphone_hears_every_rate_and_gives_back_what_went_before(model, rate):
    from parley_core.audio import float_to_pcm16

    audio = np.concatenate([silence(0.5, rate=rate), vowels(0.8, rate=rate), silence(1, rate=rate)])
    microphone = Microphone(SpeechDetector(model), sample_rate=rate, channels=2, keep=0.6)
    pcm = float_to_pcm16(np.repeat(audio, 2))
    heard, found = b"", []
    for begin in range(0, len(pcm), 1764):
        part = microphone.feed(pcm[begin : begin + 1764], detect=True)
        heard += part.pcm
        found += part.edges
    assert [each.started for each in found] == [True, False]
    assert found[0].offset == pytest.approx(0.5, abs=0.1)
    assert microphone.offset == pytest.approx(2.3, abs=0.05)
    begin = round((microphone.offset - 0.5) * 16_000) * 2
    assert microphone.since(microphone.offset - 0.5) == heard[begin:]
    assert len(microphone.since(0)) >= 0.6 * 32_000
    assert microphone.since(microphone.offset) == b""
