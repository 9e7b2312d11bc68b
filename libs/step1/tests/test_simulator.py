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

FAST = {"ttft": 0.0, "speed": 0.0}


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
    engine = await started(max_batch=1, max_waiting=1, ttft=60)
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
    engine = await started(ttft=60)
    task = asyncio.create_task(collect(engine))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineClosedError):
        await task
    with pytest.raises(EngineClosedError):
        await collect(engine)


async def test_unseeded_replies_follow_the_seed_of_the_engine():
    first, again, other = [await started(seed=seed) for seed in (1, 1, 2)]
    replies = [(await collect(each))[0] + (await collect(each))[0] for each in (first, again)]
    assert replies[0] == replies[1] != (await collect(other))[0] * 2
    assert replies[0][:40] != replies[0][40:]


async def test_prompts_cost_what_the_cache_does_not_hold():
    engine = await started(prefill_speed=1e6)
    prompt = tuple(range(100))
    assert (await engine.prefill(prompt[:40])).computed_tokens == 40
    _, last = await collect(engine, prompt=prompt)
    assert last.usage.cached_tokens == 32
    _, last = await collect(engine, prompt=prompt[:96])
    assert last.usage.cached_tokens == 95
    _, last = await collect(engine, prompt=(7, *prompt[1:]))
    assert last.usage.cached_tokens == 0


async def test_the_cache_forgets_what_was_not_used_for_longest():
    engine = await started(cache_tokens=64)
    old, new = tuple(range(48)), tuple(range(100, 132))
    await engine.prefill(old)
    await engine.prefill(new)
    assert (await engine.prefill(new)).cached_tokens == 31
    assert (await engine.prefill(old)).cached_tokens == 0


async def test_a_script_is_said_over_and_over_in_steps():
    engine = await started(script=(11, 12, 13), step_tokens=2, reply_tokens=5)
    request = GenerateRequest("r", (1,), SamplingParams())
    steps = [delta.token_ids async for delta in engine.generate(request)]
    assert steps == [(11, 12), (13, 11), (12,), ()]


def test_replies_may_be_as_long_as_a_share_of_their_limit_in_whole_runs():
    options = SimulatorOptions(reply_share=0.4, unit=5)
    assert [options.reply_length(limit) for limit in (75, 110, 5, 3)] == [30, 40, 5, 3]
