"""Many at once, and clients that vanish."""

import asyncio
import signal
import time

import numpy as np
import pytest
import soundfile
from constellation import QUESTION, until
from parley_client import ConversationConfig, Recording

pytestmark = pytest.mark.e2e

CALLS = 20
GREEDY = ConversationConfig(temperature=0.0, seed=5, max_output_tokens=12)
SUMMANDS = ("two", "three", "five", "eight", "ten", "eleven", "twenty", "thirty", "forty", "fifty")


def questions():
    """Twenty different questions, half of them spoken."""
    samples, rate = soundfile.read(QUESTION, dtype="int16")
    for index in range(CALLS):
        if index % 2:
            yield {"text": f"What is {SUMMANDS[index // 2]} plus nine?"}
        else:
            length = int(rate * (0.8 + 0.1 * index))
            yield {"audio": Recording.from_samples(samples[:length], rate)}


async def test_concurrent_answers_equal_their_solo_runs(constellation):
    asks = list(questions())
    async with constellation.client() as client:

        async def ask(question):
            return await client.ask(**question, config=GREEDY).collect()

        solo = [await ask(question) for question in asks]
        together = await asyncio.gather(*(ask(question) for question in asks))
    # The comparison means something only if the answers differ.
    assert len({answer.text for answer in solo}) > CALLS // 2
    for alone, crowd in zip(solo, together, strict=True):
        assert crowd.text == alone.text
        assert crowd.started.question_tokens == alone.started.question_tokens
        assert crowd.finished.usage.audio_output_tokens == alone.finished.usage.audio_output_tokens
        assert len(crowd.samples) == len(alone.samples)
        difference = np.abs(crowd.samples.astype(int) - alone.samples.astype(int))
        # Floats add up in another order in another batch: a few steps of 16 bits at most.
        assert difference.max(initial=0) <= 64
    assert len({answer.started.session for answer in [*solo, *together]}) == 2 * CALLS


def test_a_client_that_is_killed_frees_every_engine_within_a_second(processes):
    until(lambda: not any(processes.running().values()), 10, "idle")
    process = processes.popen("ask", QUESTION, "--seed", "3")
    try:
        # Mid-reply: speech is being made.
        busy = until(lambda: (running := processes.running())["vocoder"] and running, 60, "a reply")
        assert busy["gateway"] > 0
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not any(processes.running().values()), 1.0, "all engines idle")
        assert time.monotonic() - killed < 1.0
    finally:
        process.kill()
        process.wait()


async def test_a_deadline_ends_the_work_of_every_stage(processes):
    from parley_client import DeadlineExceeded

    async with processes.client() as client:
        with pytest.raises(DeadlineExceeded):
            await client.ask(QUESTION, timeout=0.001).collect()
        await asyncio.to_thread(
            until, lambda: not any(processes.running().values()), 5, "all engines idle"
        )
        assert (await client.ask(text="Still there?", text_only=True).collect()).text
