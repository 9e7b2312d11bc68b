import asyncio

import pytest
from step1.engine.contract import (
    EngineClosedError,
    EngineOverloadedError,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PromptTooLongError,
    SamplingParams,
)
from step1.engine.simulator import SimulatorEngine, SimulatorOptions
from step1.logits import AudioGrammar

pytestmark = pytest.mark.unit

FAST = {"first_token_seconds": 0.0, "tokens_per_second": 1e6}


async def started(**options):
    engine = SimulatorEngine(SimulatorOptions(**{**FAST, **options}))
    await engine.start()
    return engine


async def collect(engine, prompt=(1, 4), **params):
    request = GenerateRequest("r", tuple(prompt), SamplingParams(**params))
    deltas = [delta async for delta in engine.generate(request)]
    return [token for delta in deltas for token in delta.token_ids], deltas[-1]


async def test_replies_follow_the_seed_the_constraint_and_the_limits():
    engine = await started(reply_tokens=25, max_model_len=100)
    rules = {"constraint": AudioGrammar(), "seed": 4}
    ids, last = await collect(engine, **rules)
    assert (await collect(engine, **rules))[0] == ids
    assert (await collect(engine, **{**rules, "seed": 5}))[0] != ids
    assert [(t - 65536 < 1024) for t in ids] == [True, True, False, False, False] * 5
    assert last.finish_reason is FinishReason.STOP
    _, last = await collect(engine, max_tokens=3)
    assert (last.finish_reason, last.usage.output_tokens) == (FinishReason.LENGTH, 3)
    _, last = await collect(engine, prompt=[1] * 95)
    assert last.usage.output_tokens == 5


async def test_bad_prompts_are_refused_as_by_the_real_engines():
    engine = await started(max_model_len=10)
    with pytest.raises(InvalidPromptError):
        await collect(engine, prompt=[])
    with pytest.raises(InvalidPromptError):
        await collect(engine, prompt=[74752])
    with pytest.raises(PromptTooLongError):
        await collect(engine, prompt=[1] * 10)


async def test_places_queue_and_abort_are_counted():
    engine = await started(max_batch=1, max_waiting=1, first_token_seconds=60)
    request = GenerateRequest("r", (1,))
    tasks = [asyncio.create_task(anext(engine.generate(request))) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (engine.stats().running, engine.stats().waiting) == (1, 1)
    with pytest.raises(EngineOverloadedError):
        await collect(engine)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


async def test_closing_ends_what_runs():
    engine = await started(first_token_seconds=60)
    task = asyncio.create_task(collect(engine))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineClosedError):
        await task
    with pytest.raises(EngineClosedError):
        await collect(engine)
