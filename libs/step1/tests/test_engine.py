"""The torch engine against the contract, on seeded weights; and the golden model through it."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch
from step1.engine.contract import (
    EngineClosedError,
    EngineFailedError,
    EngineOverloadedError,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PromptTooLongError,
    SamplingParams,
)
from step1.engine.kv_cache import KVCache
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.logits import AllowedIds, AudioGrammar, RepetitionFilter
from step1.model import Span, Step1Model

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def chat_model(chat_folder):
    return Step1Model.load(chat_folder)


@pytest.fixture(scope="module")
def tts_model(tts_folder):
    return Step1Model.load(tts_folder)


@asynccontextmanager
async def running(model, **options):
    engine = TorchEngine(model, TorchEngineOptions(**{"max_model_len": 1024, **options}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def collect(engine, prompt, **params):
    request = GenerateRequest("test", tuple(prompt), SamplingParams(**params))
    ids, deltas = [], []
    async for delta in engine.generate(request):
        ids += delta.token_ids
        deltas.append(delta)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert [delta.usage for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return ids, deltas[-1]


async def drain(replies):
    async for _ in replies:
        pass


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the engine's own thread changes it
            await asyncio.sleep(0.001)


def prompts(tokenizer, count):
    return [
        tokenizer.encode_template(
            f"<s><|BOT|>human\n{'word ' * (7 * i)}{i}<|EOT|><|BOT|>assistant\n"
        )
        for i in range(count)
    ]


GREEDY = {"temperature": 0, "max_tokens": 16, "stop_token_ids": ()}


async def test_twenty_greedy_replies_at_once_equal_each_alone(chat_model, tokenizer):
    asked = prompts(tokenizer, 20)
    greedy = {**GREEDY, "constraint": AllowedIds(tokenizer.text_ranges())}
    async with running(chat_model, max_batch=20) as engine:
        alone = [(await collect(engine, prompt, **greedy))[0] for prompt in asked]
    assert len({tuple(reply) for reply in alone}) > 10
    for options in ({"max_batch": 20}, {"max_batch": 3, "prefill_chunk": 16}):
        async with running(chat_model, **options) as engine:
            together = await asyncio.gather(*(collect(engine, p, **greedy) for p in asked))
        assert [reply for reply, _ in together] == alone


async def test_twenty_spoken_replies_at_once_equal_each_alone(tts_model, tokenizer):
    asked = prompts(tokenizer, 20)
    rules = {"constraint": AudioGrammar(), "repetition": RepetitionFilter(), "max_tokens": 20}
    async with running(tts_model, max_batch=20) as engine:
        alone = [await collect(engine, p, seed=i, **rules) for i, p in enumerate(asked)]
    async with running(tts_model, max_batch=20) as engine:
        together = await asyncio.gather(
            *(collect(engine, p, seed=i, **rules) for i, p in enumerate(asked))
        )
    assert [reply for reply, _ in together] == [reply for reply, _ in alone]


async def test_a_seed_fixes_the_reply_whatever_else_runs(chat_model, tokenizer):
    asked = prompts(tokenizer, 6)
    sampled = {"temperature": 1.0, "max_tokens": 20, "stop_token_ids": ()}
    async with running(chat_model, max_batch=6) as engine:
        alone = await collect(engine, asked[2], seed=11, **sampled)
        other = await collect(engine, asked[2], seed=12, **sampled)
        together = await asyncio.gather(
            *(collect(engine, prompt, seed=9 + i, **sampled) for i, prompt in enumerate(asked))
        )
    assert together[2][0] == alone[0] != other[0]


async def test_a_stop_id_ends_the_reply_and_is_not_part_of_it(chat_model, tokenizer):
    (prompt,) = prompts(tokenizer, 1)
    async with running(chat_model) as engine:
        ids, last = await collect(engine, prompt, **{**GREEDY, "max_tokens": 8})
        assert (len(ids), last.finish_reason) == (8, FinishReason.LENGTH)
        position = ids.index(ids[3])
        stopped, last = await collect(engine, prompt, **{**GREEDY, "stop_token_ids": (ids[3],)})
    assert stopped == ids[:position]
    assert last.finish_reason is FinishReason.STOP
    assert last.usage.output_tokens == position
    assert last.usage.prompt_tokens == len(prompt)


async def test_constraints_hold_for_every_token(tts_model, chat_model, tokenizer):
    async with running(tts_model) as engine:
        rules = {"constraint": AudioGrammar(min_groups=2), "repetition": RepetitionFilter()}
        replies = await asyncio.gather(
            *(collect(engine, [1, 4, 5], seed=seed, max_tokens=60, **rules) for seed in range(6))
        )
    for ids, last in replies:
        assert len(ids) % 5 == 0 or last.finish_reason is FinishReason.LENGTH
        assert len(ids) >= 10
        for place, token in enumerate(ids):
            code = token - 65536
            assert 0 <= code < 1024 if place % 5 < 2 else 1024 <= code < 5120
        history = [1, 4, 5, *ids]
        for end in range(13, len(history)):
            assert history[end] != RepetitionFilter().banned(history[:end])
    text_only = AllowedIds(tokenizer.text_ranges(tokenizer.eot_id))
    async with running(chat_model) as engine:
        ids, _ = await collect(
            engine, [1, 4], seed=5, temperature=5.0, top_k=0, constraint=text_only
        )
    assert all(4 < token < tokenizer.size for token in ids)


async def test_a_prompt_that_begins_like_an_earlier_one_computes_its_end_only(
    chat_model, tokenizer
):
    prompt = prompts(tokenizer, 12)[-1]
    longer = [*prompt, *tokenizer.encode_text("and more")]
    async with running(chat_model, prefix_cache_bytes=0) as engine:
        expected, last = await collect(engine, longer, **GREEDY)
        assert last.usage.cached_tokens == 0
    async with running(chat_model) as engine:
        await collect(engine, prompt, **GREEDY)
        reply, last = await collect(engine, longer, **GREEDY)
        assert last.usage.cached_tokens == len(prompt)
        _, again = await collect(engine, longer, **GREEDY)
        assert again.usage.cached_tokens == len(longer) - 1
    assert reply == expected


async def test_prefill_leaves_the_tail_only_to_generate(chat_model, tokenizer):
    prompt = prompts(tokenizer, 15)[-1]
    async with running(chat_model) as engine:
        first = await engine.prefill(tuple(prompt[:40]))
        second = await engine.prefill(tuple(prompt[:90]))
        repeat = await engine.prefill(tuple(prompt[:90]))
        _, last = await collect(engine, prompt, **GREEDY)
        assert engine.stats().running == 0
    assert (first.cached_tokens, first.computed_tokens) == (1, 39)
    assert (second.cached_tokens, second.computed_tokens) == (40, 50)
    assert (repeat.cached_tokens, repeat.computed_tokens) == (90, 0)
    assert last.usage.cached_tokens == 90


async def test_closing_or_cancelling_the_iterator_frees_the_place(chat_model, tokenizer):
    (prompt,) = prompts(tokenizer, 1)
    request = GenerateRequest("r", tuple(prompt), SamplingParams(max_tokens=900, stop_token_ids=()))
    async with running(chat_model, max_batch=1) as engine:
        replies = engine.generate(request)
        await anext(replies)
        assert engine.stats().running == 1
        await replies.aclose()
        await until(lambda: engine.stats().running == 0)

        async def consume():
            async with contextlib.aclosing(engine.generate(request)) as deltas:
                async for _ in deltas:
                    pass

        first, second = asyncio.create_task(consume()), asyncio.create_task(consume())
        await until(lambda: engine.stats().running == 1 and engine.stats().waiting == 1)
        for task in (second, first):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await until(lambda: engine.stats().running == 0 and engine.stats().waiting == 0)
        ids, _ = await collect(engine, prompt, **GREEDY)
        assert len(ids) == 16


async def test_a_cancelled_prefill_frees_the_place(chat_model):
    async with running(chat_model, max_batch=1, prefill_chunk=1) as engine:
        task = asyncio.create_task(engine.prefill(tuple([7] * 1000)))
        await until(lambda: engine.stats().running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: engine.stats().running == 0)


async def test_a_full_queue_refuses_and_recovers(chat_model, tokenizer):
    (prompt,) = prompts(tokenizer, 1)
    async with running(chat_model, max_batch=2, max_waiting=1) as engine:
        endless = SamplingParams(max_tokens=900, stop_token_ids=())
        replies = [engine.generate(GenerateRequest("r", tuple(prompt), endless)) for _ in range(2)]
        for reply in replies:
            await anext(reply)
        queued = asyncio.create_task(collect(engine, prompt, **GREEDY))
        await until(lambda: engine.stats().waiting == 1)
        with pytest.raises(EngineOverloadedError):
            await collect(engine, prompt, **GREEDY)
        with pytest.raises(EngineOverloadedError):
            await engine.prefill(tuple(prompt))
        for reply in replies:
            await reply.aclose()
        ids, last = await queued
        assert len(ids) == 16
        assert last.usage.queue_seconds > 0


async def test_the_context_length_bounds_prompt_and_reply(chat_model):
    async with running(chat_model, max_model_len=64) as engine:
        with pytest.raises(PromptTooLongError) as caught:
            await collect(engine, [5] * 64)
        assert (caught.value.length, caught.value.limit) == (64, 64)
        ids, last = await collect(engine, [5] * 60, **GREEDY)
        assert (len(ids), last.finish_reason) == (4, FinishReason.LENGTH)
        with pytest.raises(PromptTooLongError):
            await engine.prefill((5,) * 65)


@pytest.mark.parametrize("prompt", [[], [-1], [74752]])
async def test_a_prompt_outside_the_vocabulary_is_refused(chat_model, prompt):
    async with running(chat_model) as engine:
        with pytest.raises(InvalidPromptError):
            await collect(engine, prompt)


async def test_a_closed_engine_ends_its_requests_and_refuses_more(chat_model):
    async with running(chat_model, max_batch=1) as engine:
        endless = SamplingParams(max_tokens=900, stop_token_ids=())
        replies = engine.generate(GenerateRequest("r", (5,), endless))
        await anext(replies)
        waiting = asyncio.create_task(collect(engine, [5]))
        await until(lambda: engine.stats().waiting == 1)
        await engine.close()
        with pytest.raises(EngineClosedError):
            await drain(replies)
        with pytest.raises(EngineClosedError):
            await waiting
        with pytest.raises(EngineClosedError):
            await collect(engine, [5])


async def test_a_failed_step_loses_its_requests_and_no_others(chat_model, monkeypatch):
    run = chat_model.hidden_states

    def poisoned(token_ids, *rest):
        if 666 in token_ids:
            raise RuntimeError("out of memory")
        return run(token_ids, *rest)

    async with running(chat_model) as engine:
        monkeypatch.setattr(chat_model, "hidden_states", poisoned)
        with pytest.raises(EngineFailedError):
            await collect(engine, [5, 666])
        assert engine.stats().running == 0
        ids, _ = await collect(engine, [5, 6], **GREEDY)
        assert len(ids) == 16


@pytest.mark.golden
async def test_golden_replies_through_the_engine_equal_the_references(golden):
    case = golden / "09_step1_lm"
    inputs, outputs = np.load(case / "inputs.npz"), np.load(case / "outputs.npz")
    names = [key.removesuffix(".ids") for key in inputs if key.endswith(".ids")]
    assert names
    async with running(Step1Model.load(case / "checkpoint")) as engine:
        replies = await asyncio.gather(
            *(
                collect(engine, inputs[f"{name}.ids"].tolist(), **{**GREEDY, "max_tokens": 24})
                for name in names
            )
        )
    for name, (ids, _) in zip(names, replies, strict=True):
        assert ids == outputs[f"{name}.greedy_ids"].tolist()


@pytest.mark.golden
def test_golden_logits_equal_the_references(golden):
    case = golden / "09_step1_lm"
    inputs, outputs = np.load(case / "inputs.npz"), np.load(case / "outputs.npz")
    tolerance = json.loads((case / "case.json").read_text())["tolerance"]["logits_atol"]
    model = Step1Model.load(case / "checkpoint")
    for key in inputs:
        name = key.removesuffix(".ids")
        ids = inputs[key].tolist()
        cache = KVCache(
            model.config, slots=1, max_len=256, dtype=torch.float32, device=model.device
        )
        logits = model.forward(ids, [Span(0, 0, len(ids))], cache, range(len(ids)))
        np.testing.assert_allclose(
            logits.numpy(), outputs[f"{name}.prefill_logits"], atol=tolerance, rtol=0
        )
        greedy = outputs[f"{name}.greedy_ids"].tolist()
        steps = [logits[-1]]
        for step, token in enumerate(greedy[:-1]):
            span = Span(0, len(ids) + step, 1)
            steps.append(model.forward([token], [span], cache, [0])[0])
        np.testing.assert_allclose(
            torch.stack(steps).numpy(),
            outputs[f"{name}.greedy_step_logits"],
            atol=tolerance,
            rtol=0,
        )
