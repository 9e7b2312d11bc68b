"""Latency of a vocoder stream's first chunk at eight concurrent streams over one.

Two ways to be one of eight. Joining: seven listeners are under way, their tokens there; an eighth
comes. Starting together: all eight come in the same moment, the worst case; the median of the
eight counts. The engine's listeners play by CPU time: on a shared machine they would run dry by
wall time though the engine alone could keep up.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import numpy as np
from parley_vocoder.contract import DecodeRequest, DecodeStream, FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.windows import WindowSettings

from parley_evals.bench.material import token_groups, voice
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, median
from parley_evals.bench.seeded_weights import SeededWeights

STREAMS = 8
PROMPT_S = 3.0
ROUNDS = 8
# Longer than the bench: they never end by themselves.
BACKGROUND_GROUPS = 3000
# Windows of full size; and what began together has become a steady state.
UNDER_WAY_CHUNKS = 8
_PHASE_S = 0.3


async def run(weights: SeededWeights) -> list[Figure]:
    """Both ratios with the target."""
    decoder = Decoder.load(weights.decoder)
    target = Target(Bound.AT_MOST, 1.5)
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}, clock=time.process_time) as engine:
        await engine.warm_up()
        alone, together = [], []
        for number in range(ROUNDS):
            alone.append(await _start(engine, number))
            together.append(await _start_together(engine, number))
        solo = [await _start(engine, number) for number in range(ROUNDS // 2)]
        joined = await _join(engine)
        solo += [await _start(engine, number) for number in range(ROUNDS // 2, ROUNDS)]
    return [
        Figure(
            "vocoder: first chunk, joining 7 others, over alone",
            Ratio.of(joined, solo),
            target,
            _detail(joined, solo),
        ),
        Figure(
            "vocoder: first chunk, 8 starting together, over alone",
            Ratio.of(together, alone),
            target,
            _detail(together, alone),
        ),
    ]


def _detail(many: list[Cost], one: list[Cost]) -> str:
    return (
        f"{median(many).cpu * 1e3:.0f} ms over {median(one).cpu * 1e3:.0f} ms of CPU, "
        f"{PROMPT_S:.0f} s voice prompt"
    )


async def _start(engine: TorchEngine, seed: int, watch: Watch | None = None) -> Cost:
    """Opens a stream, gives it the tokens of its first chunk, waits for the sound."""
    windows = WindowSettings()
    ids = token_groups(windows.ramp[0] + windows.look_ahead, seed)
    request = DecodeRequest(voice(PROMPT_S, seed), seed=seed)
    watch = watch or Watch()
    async with engine.open(request) as stream:
        await stream.push(ids)
        await anext(aiter(stream))
        return watch.read()


async def _start_together(engine: TorchEngine, number: int) -> Cost:
    watch = Watch()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_start(engine, number * STREAMS + k, watch)) for k in range(STREAMS)
        ]
    costs = [task.result() for task in tasks]
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
    )


async def _join(engine: TorchEngine) -> list[Cost]:
    """Newcomers, one after another, beside the same seven streams."""
    phases = np.random.default_rng(0)
    costs = []
    async with AsyncExitStack() as opened:
        under_way = []
        for k in range(STREAMS - 1):
            stream = await opened.enter_async_context(
                engine.open(DecodeRequest(voice(PROMPT_S, 100 + k), seed=k))
            )
            await stream.push(token_groups(BACKGROUND_GROUPS, k))
            under_way.append(stream)
        async with asyncio.TaskGroup() as group:
            ready = [asyncio.Event() for _ in under_way]
            listeners = [
                group.create_task(_listen(stream, event))
                for stream, event in zip(under_way, ready, strict=True)
            ]
            for event in ready:
                await event.wait()
            for number in range(ROUNDS):
                # Anywhere within the engine's steps, not right after one that gave a chunk out.
                await asyncio.sleep(float(phases.uniform(0, _PHASE_S)))
                costs.append(await _start(engine, number))
            for listener in listeners:
                listener.cancel()
    return costs


async def _listen(stream: DecodeStream, under_way: asyncio.Event) -> None:
    heard = 0
    async for _ in stream:
        heard += 1
        if heard == UNDER_WAY_CHUNKS:
            under_way.set()
