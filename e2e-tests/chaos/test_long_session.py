"""An hour of audio through one conversation, faster than real time.

How it is sped up: audio is sent as fast as the gateway takes it, speech in frames of 20 ms, silence
in frames of 100 ms; the pauses in which the gateway decides that a turn has ended, and the replies,
take the time that they take.
"""

import time

import numpy as np
import pytest
from chaos_talk import ENDED, FRAME, RATE, question, talking
from parley_client import Client

pytestmark = pytest.mark.chaos

CYCLE_S = 60.0
# What was sent at once is heard as fast as the machine can.
PATIENCE_S = 600.0
# Pools and caches fill up in the first part.
WARM_UP = 0.25
MB_PER_HOUR = 40.0


async def test_memory_does_not_grow_with_the_length_of_a_session(rig, book, request):
    minutes = request.config.getoption("--long-minutes", 0)
    cycles = round(minutes * 60 / CYCLE_S)
    said = question()
    quiet = np.zeros(round(CYCLE_S * RATE) - len(said), np.int16)
    expected = f"every turn answered; no process grows by more than {MB_PER_HOUR:.0f} MB an hour"
    with book.fault(rig, f"one session with {minutes:.0f} min of audio", expected) as row:
        rss: list[dict[str, float]] = []
        began, answered = time.monotonic(), 0
        async with Client(rig.address) as client, talking(client) as talk:
            for _ in range(cycles):
                await send(talk, said)
                done = await talk.until("response_completed", PATIENCE_S)
                assert done.message.status in ENDED, done.message
                answered += 1
                audio_s = talk.audio_s(done.response_id)
                await talk.conversation.report_playback(done.response_id, audio_s, finished=True)
                await send(talk, quiet, 5 * FRAME)
                talk.seen.clear()
                rss.append(rig.memory())
            await talk.rest()
            kept = len(await client.turns(talk.session))
        speed = minutes * 60 / (time.monotonic() - began)
        slopes = {name: slope([each[name] for each in rss]) for name in rss[0]}
        assert kept == answered == cycles
        told = ", ".join(f"{name} {each:+.1f}" for name, each in slopes.items())
        row.happened = (
            f"{kept} turns, {speed:.0f} times as fast as real time; MB an hour of audio: {told}"
        )
        if minutes >= 30:
            assert max(slopes.values()) < MB_PER_HOUR, slopes


async def send(talk, samples, size=FRAME):
    for begin in range(0, len(samples), size):
        await talk.conversation.send_audio(samples[begin : begin + size])


def slope(megabytes):
    """By least squares, MB an hour of audio, without the warm-up."""
    steady = megabytes[round(len(megabytes) * WARM_UP) :]
    if len(steady) < 2:
        return 0.0
    hours = np.arange(len(steady)) * CYCLE_S / 3600
    return float(np.polyfit(hours, steady, 1)[0])
