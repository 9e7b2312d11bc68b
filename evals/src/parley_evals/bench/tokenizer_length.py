"""Latency of a 240 ms chunk at second 60 of a tokenizer stream over second 1.

One stream is fed for a minute; then a second of it and the second [1 s, 2 s) of a fresh stream are
fed in turns, packet by packet, through the engine that serves. Each holds the same phases of the
semantic segments.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.stream import TokenStream
from parley_tokenizer.wave import SAMPLE_RATE

from parley_evals.bench.material import noise
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, median
from parley_evals.bench.seeded_weights import SeededWeights

ROUNDS = 15
SECOND_CHUNKS = 4
MINUTE_CHUNKS = 248


def open_engine(folder: Path, slots: int) -> TokenizerEngine:
    """The engine that serves, with default segments; warm it up before use."""
    return TokenizerEngine(lambda: TokenizerModels.load(folder), slots=slots)


def open_stream(engine: TokenizerEngine) -> TokenStream:
    """A stream at 16 kHz in a slot of its own."""
    return TokenStream(
        engine.open(), block_samples=engine.block_samples, sample_rate=SAMPLE_RATE, level=None
    )


async def feed(stream: TokenStream, packet: NDArray[np.float32]) -> Cost:
    """Feeds one packet and waits for the tokens it completes."""
    watch = Watch()
    async for _ in stream.feed(packet):
        pass
    return watch.read()


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio with its target."""
    async with open_engine(weights.tokenizer, slots=2) as engine:
        await engine.warm_up()
        packet = noise(engine.block_samples, 0)
        old = open_stream(engine)
        for _ in range(MINUTE_CHUNKS):
            await feed(old, packet)
        late: list[Cost] = []
        early: list[Cost] = []
        for _ in range(ROUNDS):
            new = open_stream(engine)
            for _ in range(SECOND_CHUNKS):
                await feed(new, packet)
            seconds = [Cost(0, 0), Cost(0, 0)]
            for _ in range(SECOND_CHUNKS):
                seconds[0] += await feed(old, packet)
                seconds[1] += await feed(new, packet)
            new.close()
            late.append(seconds[0])
            early.append(seconds[1])
        old.close()
    chunk = 1e3 / SECOND_CHUNKS
    return [
        Figure(
            "tokenizer: chunk at second 60 over second 1",
            Ratio.of(late, early),
            Target(Bound.AT_MOST, 1.1),
            f"{median(late).cpu * chunk:.2f} ms over {median(early).cpu * chunk:.2f} ms of CPU "
            "a chunk of 240 ms",
        )
    ]
