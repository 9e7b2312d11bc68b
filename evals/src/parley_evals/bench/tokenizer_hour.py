"""A tokenizer stream an hour long: cost of its last minute over its second, speed, memory.

59 minutes go through the engine that serves; then each second of the last minute and a second of a
fresh stream's second minute are fed in turns. Memory is the process's resident size after the
second minute and after the last.
"""

import os
from pathlib import Path

from parley_tokenizer.stream import TokenStream

from parley_evals.bench.material import noise
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch
from parley_evals.bench.seeded_weights import SeededWeights
from parley_evals.bench.tokenizer_length import feed, open_engine, open_stream

MINUTES = 60
_CHUNK_S = 0.24
_MINUTE_CHUNKS = round(60 / _CHUNK_S)
# A whole number of chunks and of semantic segments: 0.96 s.
_SECOND_CHUNKS = 4
# Different material, so that nothing is measured that repeats by accident.
_PACKETS = 50


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio, with how fast the hour went and what it left in memory behind it."""
    async with open_engine(weights.tokenizer, slots=2) as engine:
        await engine.warm_up()
        packets = [noise(engine.block_samples, number) for number in range(_PACKETS)]

        async def minutes(stream: TokenStream, count: int) -> Cost:
            watch = Watch()
            for chunk in range(count * _MINUTE_CHUNKS):
                async for _ in stream.feed(packets[chunk % _PACKETS]):
                    pass
            return watch.read()

        old = open_stream(engine)
        hour = await minutes(old, 2)
        resident_early = _resident_mib()
        hour += await minutes(old, MINUTES - 3)
        new = open_stream(engine)
        await minutes(new, 1)
        late: list[Cost] = []
        early: list[Cost] = []
        for number in range(_MINUTE_CHUNKS // _SECOND_CHUNKS):
            pair = [Cost(0, 0), Cost(0, 0)]
            for chunk in range(_SECOND_CHUNKS):
                packet = packets[(number * _SECOND_CHUNKS + chunk) % _PACKETS]
                pair[0] += await feed(old, packet)
                pair[1] += await feed(new, packet)
            late.append(pair[0])
            early.append(pair[1])
            hour += pair[0]
        resident_late = _resident_mib()
        new.close()
        old.close()
    seconds = MINUTES * 60
    return [
        Figure(
            "tokenizer: a second in minute 60 over one in minute 2",
            Ratio.of(late, early),
            Target(Bound.AT_MOST, 1.1),
            f"{MINUTES} minutes in {hour.cpu:.0f} s of CPU, {hour.wall:.0f} s by the wall "
            f"({seconds / hour.wall:.0f} times as fast as they sound); "
            f"{resident_early:.1f} MiB resident after minute 2, {resident_late:.1f} after minute "
            f"{MINUTES}",
        )
    ]


def _resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
