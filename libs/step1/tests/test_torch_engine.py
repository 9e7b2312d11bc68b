"""What the torch engine promises beyond the contract (test_engine_contract.py): batches change no
bit, prefixes of any length are found, a failed step loses its own requests only. And the golden
logits.
"""

import asyncio
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch
from engine_calls import GREEDY, collect, prompts
from step1.engine.contract import EngineFailedError
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


async def test_a_prefix_of_any_length_is_found(chat_model):
    prompt = tuple(range(300, 400))
    async with running(chat_model) as engine:
        first = await engine.prefill(prompt[:40])
        second = await engine.prefill(prompt[:90])
        repeat = await engine.prefill(prompt[:90])
        _, last = await collect(engine, prompt, **GREEDY)
    assert (first.cached_tokens, first.computed_tokens) == (0, 40)
    assert (second.cached_tokens, second.computed_tokens) == (40, 50)
    assert (repeat.cached_tokens, repeat.computed_tokens) == (90, 0)
    assert last.usage.cached_tokens == 90


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
