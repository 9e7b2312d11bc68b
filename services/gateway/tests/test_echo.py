"""What we sent, heard back by the microphone: no interruption; real speech over it still is."""

import asyncio
import itertools
import wave
from pathlib import Path

import numpy as np
import pytest
from gateway_fakes import RATE
from gateway_harness import silence, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.audio import float_to_pcm16, pcm16_to_float, resample
from parley_gateway.echo.canceller import EchoCanceller
from parley_gateway.echo.reference import EchoReference
from parley_gateway.echo.track import Track
from parley_gateway.vad import SAMPLE_RATE, SileroVad, SpeechDetector

PACKET = 320
SPEAKERS = Path(__file__).parents[3] / "weights/pocket/Step-Audio-TTS-3B/speakers"
KEEP = 3.0


@pytest.fixture(scope="module")
def model():
    return SileroVad()


def speech(seconds, *, rate=SAMPLE_RATE, seed=0, pitch=110.0):
    """Vowels under noise that comes and goes: like speech, no stretch of it is like another."""
    noise = np.random.default_rng(seed).normal(0, 0.05, round(seconds * rate))
    t = np.arange(len(noise)) / rate
    hiss = (noise * (np.sin(2 * np.pi * 2.7 * t + seed) > 0.5)).astype(np.float32)
    return vowels(seconds, rate=rate, pitch=pitch) + hiss


def voice(name):
    """A recorded voice at 22.05 kHz: a prompt of the pocket weights."""
    path = SPEAKERS / f"{name}_prompt.wav"
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE
        return pcm16_to_float(file.readframes(file.getnframes()))


def louder(samples, decibels):
    return samples * np.float32(10 ** (decibels / 20))


def heard_back(sent, delay, decibels, *, seconds):
    """The microphone's sound when what was sent at 22.05 kHz comes back."""
    echo = louder(resample(sent, RATE, SAMPLE_RATE), decibels)
    return np.concatenate([silence(delay), echo, silence(seconds)])[: round(seconds * SAMPLE_RATE)]


async def listen(model, sent, microphone, *, noise=0.0005):
    """Runs both clocks: sound leaves five times as fast as it plays."""

    async def judge(window, state):
        return model.probability(window, state)

    reference = EchoReference(RATE, KEEP)
    canceller = EchoCanceller(reference)
    detector = SpeechDetector(judge)
    background = np.random.default_rng(9).normal(0, noise, len(microphone)).astype(np.float32)
    microphone = microphone + background
    clean, edges, left = [], [], 0
    for begin in range(0, len(microphone), PACKET):
        while left < len(sent) and left / RATE <= 5 * begin / SAMPLE_RATE + 0.2:
            reference.sent("t1.0", float_to_pcm16(sent[left : left + RATE // 10]))
            left += RATE // 10
        cleaned = canceller.feed(microphone[begin : begin + PACKET])
        now = (begin + PACKET) / SAMPLE_RATE
        if cleaned.found and detector.forget(0.45):
            edges.append((False, now))
        clean.append(cleaned.samples)
        edges += [(edge.started, edge.offset) for edge in await detector.feed(cleaned.samples)]
    return canceller, microphone, np.concatenate(clean), edges


def longest(edges, end):
    """Seconds of the longest speech."""
    starts = [at for started, at in edges if started]
    stops = [at for started, at in edges if not started] + [end]
    return max((stop - start for start, stop in zip(starts, stops, strict=False)), default=0.0)


@pytest.mark.unit
@pytest.mark.parametrize("decibels", [-6, -18, -30])
@pytest.mark.parametrize("delay", [0.01, 0.12, 0.3])
async def test_an_echo_is_never_speech_long_enough_to_interrupt(model, delay, decibels):
    sent = speech(3.0, rate=RATE, pitch=140.0)
    microphone = heard_back(sent, delay, decibels, seconds=3.5)
    canceller, raw, clean, edges = await listen(model, sent, microphone)
    # Not counting the packet that was on its way, the reply is heard back when it was sent.
    assert canceller.delay == pytest.approx(delay, abs=0.04)
    assert longest(edges, 3.5) < 0.3
    later = slice(round((delay + 0.6) * SAMPLE_RATE), round((delay + 2.9) * SAMPLE_RATE))
    floor = 0.0005**2
    before = np.mean(raw[later] ** 2) - floor
    assert np.mean(clean[later] ** 2) < 0.02 * before + 1.5 * floor


async def talked_over(model, decibels):
    """What is left of speech from 1.5 to 2.7 s over an echo, the speech itself, and its edges."""
    sent = speech(3.5, rate=RATE, pitch=140.0)
    said = speech(1.2, seed=5, pitch=215.0)
    microphone = heard_back(sent, 0.15, decibels, seconds=4.0)
    begin = round(1.5 * SAMPLE_RATE)
    microphone[begin : begin + len(said)] += said
    _, _, clean, edges = await listen(model, sent, microphone)
    spoken = [(at, stop) for (_, at), (_, stop) in zip(edges[::2], edges[1::2], strict=False)]
    (found,) = [(at, stop) for at, stop in spoken if stop - at > 0.3]
    return clean[begin : begin + len(said)], said, found


@pytest.mark.unit
@pytest.mark.parametrize("decibels", [-6, -18, -30])
async def test_speech_over_an_echo_is_heard_and_kept(model, decibels):
    left, said, _ = await talked_over(model, decibels)
    assert np.corrcoef(left, said)[0, 1] > 0.9


@pytest.mark.unit
@pytest.mark.parametrize("decibels", [-6, -18, -30])
async def test_speech_over_an_echo_is_heard_where_it_begins_and_ends(model, decibels):
    _, _, found = await talked_over(model, decibels)
    assert found[0] == pytest.approx(1.5, abs=0.15)
    assert found[1] == pytest.approx(2.7, abs=0.2)


@pytest.mark.unit
@pytest.mark.parametrize("reverberation", [0.15, 0.3])
async def test_a_room_that_rings_is_learnt(model, reverberation):
    length = round(reverberation * SAMPLE_RATE)
    rings = np.random.default_rng(3).normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    rings *= 0.5 / np.sqrt(np.sum(rings**2))
    rings[0] += 1
    sent = speech(4.0, rate=RATE, pitch=140.0)
    microphone = np.convolve(heard_back(sent, 0.2, -6, seconds=4.5), rings)[: round(4.5 * 16_000)]
    said = speech(1.2, seed=5, pitch=215.0)
    begin = round(2.5 * SAMPLE_RATE)
    microphone[begin : begin + len(said)] += said
    _, _, _, edges = await listen(model, sent, microphone.astype(np.float32))
    spoken = [(at, stop) for (_, at), (_, stop) in zip(edges[::2], edges[1::2], strict=False)]
    (found,) = [(at, stop) for at, stop in spoken if stop - at > 0.3]
    assert found == (pytest.approx(2.5, abs=0.15), pytest.approx(3.7, abs=0.2))


@pytest.mark.unit
async def test_without_an_echo_every_sample_passes_untouched(model):
    sent = speech(3.0, rate=RATE, pitch=140.0)
    said = np.concatenate([silence(0.5), speech(1.5, seed=5, pitch=215.0), silence(0.5)])
    canceller, raw, clean, edges = await listen(model, sent, said)
    assert canceller.delay is None
    assert np.array_equal(raw, clean)
    assert [started for started, _ in edges] == [True, False]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("said", "sent"), list(itertools.permutations(("Parley", "Slt", "Rms"), 2))
)
@pytest.mark.parametrize("lead", [0.0, 0.4, 0.9])
def test_a_voice_that_speaks_while_another_is_sent_is_not_taken_for_its_echo(said, sent, lead):
    reference = EchoReference(RATE, KEEP)
    canceller = EchoCanceller(reference)
    reference.sent("t1.0", float_to_pcm16(np.tile(voice(sent), 3)[round(lead * RATE) :]))
    user = np.tile(resample(voice(said), RATE, SAMPLE_RATE), 2)
    packets = [user[at : at + PACKET] for at in range(0, len(user), PACKET)]
    cleaned = [canceller.feed(packet) for packet in packets]
    assert sum(each.found for each in cleaned) == 0
    assert np.array_equal(np.concatenate([each.samples for each in cleaned]), user)


@pytest.mark.unit
async def test_a_delay_that_moves_is_followed(model):
    sent = speech(6.0, rate=RATE, pitch=140.0)
    early = heard_back(sent, 0.1, -12, seconds=3.0)
    late = heard_back(sent, 0.25, -12, seconds=6.5)[len(early) :]
    _, _, clean, edges = await listen(model, sent, np.concatenate([early, late]))
    assert longest(edges, 6.5) < 0.5
    settled = slice(round(4.0 * SAMPLE_RATE), round(6.0 * SAMPLE_RATE))
    assert np.mean(clean[settled] ** 2) < 0.05 * np.mean(late[SAMPLE_RATE : 3 * SAMPLE_RATE] ** 2)


@pytest.mark.unit
def test_a_track_is_silent_where_nothing_was_written_and_keeps_the_latest():
    track, whole = Track(), np.zeros(400_000, np.float32)
    source = np.random.default_rng(0)
    end = 0
    for _ in range(300):
        begin = max(0, end + int(source.integers(-100, 400)))
        samples = source.normal(size=int(source.integers(0, 500))).astype(np.float32)
        whole[begin:] = 0
        end = begin + len(samples)
        whole[begin:end] = samples
        track.forget(end - 5_000)
        track.write(begin, samples)
        assert track.end == end
        first = max(0, end - 4_000)
        assert np.array_equal(track.window(first, end + 50), whole[first : end + 50])


@pytest.mark.unit
def test_what_is_kept_is_bounded_and_old_sound_is_forgotten():
    reference = EchoReference(SAMPLE_RATE, KEEP)
    second = float_to_pcm16(speech(1.0))
    for number in range(3000):
        reference.sent(f"t{number}.0", second)
    assert reference.audible(0)
    now = 0
    for _ in range(60):
        now += SAMPLE_RATE
        reference.sent("t", second)
        assert reference.audible(now)
    assert not reference.window(now - 10 * SAMPLE_RATE, now - 5 * SAMPLE_RATE).any()
    assert reference.window(now - SAMPLE_RATE, now).any()
    assert not reference.audible(now + 5 * SAMPLE_RATE)


def agent(gateway):
    """A reply of six seconds that sounds like speech."""
    gateway.stages.vocoder.voice = float_to_pcm16(speech(8.0, rate=RATE, pitch=140.0))
    gateway.stages.tts.groups = 8


async def reply_sound(talk):
    await talk.until("response_completed")
    sound = [e.audio.content for e in talk.seen if e.WhichOneof("event") == "audio"]
    return pcm16_to_float(b"".join(sound), field="")


@pytest.mark.contract
@pytest.mark.parametrize(("delay", "decibels"), [(0.01, -6), (0.3, -6), (0.1, -30), (0.3, -18)])
async def test_a_reply_that_the_microphone_returns_plays_to_its_end(gateway, delay, decibels):
    agent(gateway)
    async with talking(gateway, config=config()) as talk:
        await talk.write("tell me a story")
        sent = await reply_sound(talk)
        await talk.say(heard_back(sent, delay, decibels, seconds=4.0))
        # Whatever it was taken for, it would have interrupted by now.
        await asyncio.sleep(0.7)
        assert "interruption" not in talk.kinds()
        played = pb.PlaybackProgress(response_id=talk.seen[-1].response_id, finished=True)
        await talk.send(playback=played)
        await talk.call.done_writing()
        await talk.rest()
    assert "interruption" not in talk.kinds()
    (turns,) = gateway.stages.context.turns.values()
    assert len(turns) == 1


@pytest.mark.contract
@pytest.mark.parametrize("decibels", [-6, -30])
async def test_a_user_who_talks_over_the_echo_interrupts(gateway, decibels):
    agent(gateway)
    async with talking(gateway, config=config()) as talk:
        await talk.write("tell me a story")
        sent = await reply_sound(talk)
        microphone = heard_back(sent, 0.1, decibels, seconds=3.0)
        said = speech(1.5, seed=5, pitch=215.0)
        microphone[-len(said) :] += said
        await talk.say(microphone)
        stopped = (await talk.until("interruption")).interruption
        assert stopped.reason == pb.INTERRUPTION_REASON_USER_SPEECH


@pytest.mark.contract
async def test_a_client_that_cancels_echo_is_taken_at_its_word(gateway):
    agent(gateway)
    async with talking(gateway, config=config(echo_cancelled=True)) as talk:
        await talk.write("tell me a story")
        sent = await reply_sound(talk)
        await talk.say(heard_back(sent, 0.1, -6, seconds=2.0))
        await talk.until("interruption")
