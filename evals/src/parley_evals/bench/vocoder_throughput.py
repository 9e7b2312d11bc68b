"""Eight utterances through the vocoder's engine, over the straightforward way.

The straightforward way (`_decode_again_from_the_start`) has the same weights and no engine: one
utterance after another; whenever about another second of tokens is there, all tokens so far are
decoded again with full context and only the new samples kept. Its first sound comes later than the
engine's. Its cost grows with the square of the length, so the length is told.
"""

import asyncio
from collections.abc import Sequence

from parley_core.tokens import GROUP_SIZE
from parley_vocoder.contract import DecodeRequest, FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import decode_whole

from parley_evals.bench.material import GROUP_S, token_groups, voice
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, in_turns, median
from parley_evals.bench.seeded_weights import SeededWeights

STREAMS = 8
PROMPT_S = 3.0
UTTERANCE_S = 10.0
ROUNDS = 3
# 0.96 s.
_CHUNK_TOKENS = 8 * GROUP_SIZE


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio with its target, and how much of it batching alone gives."""
    decoder = Decoder.load(weights.decoder)
    groups = round(UTTERANCE_S / GROUP_S)
    requests = [DecodeRequest(voice(PROMPT_S, k), seed=k) for k in range(STREAMS)]
    tokens = [token_groups(groups, k) for k in range(STREAMS)]
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}) as engine:
        await engine.warm_up()

        async def together() -> Cost:
            watch = Watch()
            async with asyncio.TaskGroup() as group:
                for request, ids in zip(requests, tokens, strict=True):
                    group.create_task(_play(engine, request, ids))
            return watch.read()

        async def alone() -> Cost:
            watch = Watch()
            await _play(engine, requests[0], tokens[0])
            return watch.read() * STREAMS

        async def straightforward() -> Cost:
            return await asyncio.to_thread(_straightforward, decoder, requests[0], tokens[0])

        plain, solo, batched = await in_turns(
            ROUNDS, straightforward, alone, together, warm_up=False
        )
    what = f"{STREAMS} utterances of {UTTERANCE_S:.0f} s, {PROMPT_S:.0f} s voice prompt"
    realtime = STREAMS * UTTERANCE_S
    return [
        Figure(
            "vocoder: straightforward over batched",
            Ratio.of(plain, batched),
            Target(Bound.AT_LEAST, 3.0),
            f"{what}: {median(plain).cpu:.2f} s over {median(batched).cpu:.2f} s of CPU "
            f"({median(batched).cpu / realtime:.3f} a second of sound)",
        ),
        Figure(
            "vocoder: one after another over batched, both in windows",
            Ratio.of(solo, batched),
            detail="what batching alone gives on this machine",
        ),
    ]


def _straightforward(decoder: Decoder, request: DecodeRequest, ids: Sequence[int]) -> Cost:
    """One utterance's cost times the number of utterances: they differ in nothing that costs."""
    watch = Watch()
    _decode_again_from_the_start(decoder, request, ids)
    return watch.read() * STREAMS


def _decode_again_from_the_start(
    decoder: Decoder, request: DecodeRequest, ids: Sequence[int]
) -> None:
    conditioning = decoder.voice(request.voice)
    sounded = 0
    for tokens in range(_CHUNK_TOKENS, len(ids) + _CHUNK_TOKENS, _CHUNK_TOKENS):
        sound = decode_whole(decoder, conditioning, ids[:tokens], SeededNoise(request.seed))
        # What a listener gets: the samples that are new.
        sounded += len(sound.samples[sounded:])


async def _play(engine: TorchEngine, request: DecodeRequest, ids: Sequence[int]) -> None:
    async with engine.open(request) as stream:
        await stream.push(ids)
        stream.end()
        async for _ in stream:
            pass
