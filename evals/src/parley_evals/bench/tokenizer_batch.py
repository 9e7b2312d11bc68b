"""Sixteen tokenizer streams one after another over sixteen at once."""

import asyncio

import numpy as np
from numpy.typing import NDArray
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.wave import SAMPLE_RATE

from parley_evals.bench.material import noise
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, in_turns, median
from parley_evals.bench.seeded_weights import SeededWeights
from parley_evals.bench.tokenizer_length import open_engine, open_stream

STREAMS = 16
AUDIO_S = 6
ROUNDS = 5


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio with its target."""
    async with open_engine(weights.tokenizer, slots=STREAMS) as engine:
        await engine.warm_up()
        signals = [noise(AUDIO_S * SAMPLE_RATE, k) for k in range(STREAMS)]

        async def one_after_another() -> Cost:
            watch = Watch()
            for signal in signals:
                await _tokenize(engine, signal)
            return watch.read()

        async def at_once() -> Cost:
            watch = Watch()
            async with asyncio.TaskGroup() as group:
                for signal in signals:
                    group.create_task(_tokenize(engine, signal))
            return watch.read()

        serial, batched = await in_turns(ROUNDS, one_after_another, at_once)
    realtime = STREAMS * AUDIO_S
    return [
        Figure(
            f"tokenizer: {STREAMS} streams one by one over at once",
            Ratio.of(serial, batched),
            Target(Bound.AT_LEAST, 4.0),
            f"{median(serial).cpu:.2f} s over {median(batched).cpu:.2f} s of CPU for "
            f"{realtime} s of audio",
        )
    ]


async def _tokenize(engine: TokenizerEngine, signal: NDArray[np.float32]) -> None:
    """One stream, packet by packet, to its end."""
    stream = open_stream(engine)
    try:
        for at in range(0, len(signal), engine.block_samples):
            async for _ in stream.feed(signal[at : at + engine.block_samples]):
                pass
        async for _ in stream.finish():
            pass
    finally:
        stream.close()
