"""The Step-1 language model: logits, greedy replies, ALiBi (golden kind `step1_lm`)."""

import asyncio
from collections.abc import Iterator

import numpy as np
import torch
from step1.alibi import alibi_slopes, sqrt_bias
from step1.engine.contract import GenerateRequest, SamplingParams
from step1.engine.kv_cache import KVCache
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.model import Span, Step1Model

from parley_evals.golden.case import Check, GoldenCase


def compare(case: GoldenCase) -> Iterator[Check]:
    """Logits of prefill and of each step, greedy ids through the engine, slopes and bias."""
    model = Step1Model.load(case.checkpoint())
    tolerance = case.tolerance("logits_atol")
    prompts = {name: case.inputs[f"{name}.ids"].tolist() for name in case.variants(".ids")}
    replies = {name: case.outputs[f"{name}.greedy_ids"].tolist() for name in prompts}
    for name, prompt in prompts.items():
        prefill = _logits(model, prompt)
        yield case.close(
            f"{name}.prefill_logits", prefill, case.outputs[f"{name}.prefill_logits"], tolerance
        )
        steps = _logits(model, prompt + replies[name][:-1])[len(prompt) - 1 :]
        yield case.close(
            f"{name}.greedy_step_logits",
            steps,
            case.outputs[f"{name}.greedy_step_logits"],
            tolerance,
        )
    ours = asyncio.run(_replies(model, prompts, {name: len(ids) for name, ids in replies.items()}))
    for name, ids in replies.items():
        yield case.same(f"{name}.greedy_ids, {len(prompts)} at once", ours[name], ids)
    slopes = alibi_slopes(model.config.num_attention_heads)
    for key in case.outputs:
        if key == "alibi_slopes":
            yield case.close(key, slopes, case.outputs[key], 1e-7)
        elif key.startswith("alibi_slopes_"):
            heads = len(case.outputs[key])
            yield case.close(key, alibi_slopes(heads), case.outputs[key], 1e-7)
        elif key.startswith("layer0_attn_bias"):
            golden = case.outputs[key]
            last = max(golden.shape[1], 1) - 1
            row = sqrt_bias(slopes, torch.tensor([last]), last + 1).reshape(len(slopes), -1)
            yield case.close(key, np.asarray(row)[:, ::-1], golden, 1e-6)


def _logits(model: Step1Model, ids: list[int]) -> torch.Tensor:
    cache = KVCache(model.config, slots=1, max_len=len(ids), dtype=model.dtype, device=model.device)
    return model.forward(ids, [Span(0, 0, len(ids))], cache, range(len(ids)))


async def _replies(
    model: Step1Model, prompts: dict[str, list[int]], lengths: dict[str, int]
) -> dict[str, list[int]]:
    """Greedy replies through the serving engine, all prompts at once."""
    engine = TorchEngine(model, TorchEngineOptions(max_batch=len(prompts)))
    await engine.start()
    replies: dict[str, list[int]] = {name: [] for name in prompts}

    async def reply(name: str) -> None:
        params = SamplingParams(temperature=0, max_tokens=lengths[name], stop_token_ids=())
        async for delta in engine.generate(GenerateRequest(name, tuple(prompts[name]), params)):
            replies[name] += delta.token_ids

    try:
        async with asyncio.TaskGroup() as group:
            for name in prompts:
                group.create_task(reply(name))
    finally:
        await engine.close()
    return replies
