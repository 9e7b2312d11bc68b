"""Tokens a second of the torch Step-1 engine at batch 8 over batch 1."""

import asyncio

from step1.engine.contract import GenerateRequest, SamplingParams
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.model import Step1Model

from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, in_turns, median
from parley_evals.bench.seeded_weights import SeededWeights

BATCH = 8
PROMPT_TOKENS = 64
REPLY_TOKENS = 96
ROUNDS = 5


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio with its target: the cost of eight replies one by one over eight at once."""
    model = Step1Model.load(weights.chat)
    engine = TorchEngine(
        model, TorchEngineOptions(max_batch=BATCH, max_model_len=1024, prefix_cache_bytes=0)
    )
    await engine.start()
    try:

        async def alone() -> Cost:
            watch = Watch()
            await _reply(engine, 0)
            return watch.read() * BATCH

        async def together() -> Cost:
            watch = Watch()
            async with asyncio.TaskGroup() as group:
                for seed in range(BATCH):
                    group.create_task(_reply(engine, seed))
            return watch.read()

        single, batched = await in_turns(ROUNDS, alone, together)
    finally:
        await engine.close()
    tokens = BATCH * REPLY_TOKENS
    return [
        Figure(
            f"torch LM engine: tokens/s at batch {BATCH} over batch 1",
            Ratio.of(single, batched),
            Target(Bound.AT_LEAST, 4.0),
            f"{tokens / median(batched).cpu:.0f} over {tokens / median(single).cpu:.0f} tokens a "
            f"CPU second, prompts of {PROMPT_TOKENS} included",
        )
    ]


async def _reply(engine: TorchEngine, seed: int) -> None:
    """One sampled reply of a fixed length."""
    params = SamplingParams(max_tokens=REPLY_TOKENS, seed=seed, stop_token_ids=())
    prompt = tuple(range(100 + seed, 100 + seed + PROMPT_TOKENS))
    async for _ in engine.generate(GenerateRequest(f"reply-{seed}", prompt, params)):
        pass
