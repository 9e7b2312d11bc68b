"""One contract, two engines: whatever `step1.engine.contract` promises, torch and vLLM both keep.

Replies are compared with torch's, computed one request at a time. vLLM runs where it is installed
(`make test-vllm`), in float32 on CPU, on checkpoints as published: config.json has no tie flag.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from engine_calls import ENDLESS, GREEDY, collect, prompts, until
from step1.engine.contract import (
    EngineClosedError,
    EngineOverloadedError,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PromptTooLongError,
)
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.engine.vllm_engine import VllmEngine, VllmEngineOptions
from step1.logits import AllowedIds, AudioGrammar, RepetitionFilter

ENGINES = [pytest.param("torch", marks=pytest.mark.unit)]
if importlib.util.find_spec("vllm"):
    ENGINES.append(pytest.param("vllm", marks=pytest.mark.vllm))
GRAIN = {"torch": 1, "vllm": 32}
"""Tokens that the prefix cache keeps or finds at once."""
PLACES, QUEUE, CONTEXT = 8, 4, 2048

# vLLM starts three processes, which import torch each.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


@asynccontextmanager
async def running(kind, folder, **options):
    options = {"max_batch": PLACES, "max_waiting": QUEUE, "max_model_len": CONTEXT, **options}
    if kind == "torch":
        engine = TorchEngine.load(folder, TorchEngineOptions(**options))
    else:
        engine = VllmEngine(folder, VllmEngineOptions(dtype="float32", **options))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@pytest.fixture(scope="module", params=ENGINES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def published(chat_folder, tts_folder, tmp_path_factory):
    """The seeded checkpoints with a config.json that says nothing of tied embeddings."""
    folders = {}
    for name, source in {"chat": chat_folder, "tts": tts_folder}.items():
        folder = tmp_path_factory.mktemp("published") / name
        shutil.copytree(source, folder)
        set_tied(folder, None)
        folders[name] = folder
    return folders


def set_tied(folder, tied):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("tie_word_embeddings", None)
    path.write_text(json.dumps(config | ({} if tied is None else {"tie_word_embeddings": tied})))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(kind, published):
    async with running(kind, published["chat"]) as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tts(kind, published):
    async with running(kind, published["tts"]) as engine:
        yield engine


async def torch_alone(folder, asked, **params):
    """What torch replies to each prompt by itself: no batch, no prefix cache."""
    async with running("torch", folder, max_batch=1, prefix_cache_bytes=0) as engine:
        return [(await collect(engine, prompt, **params))[0] for prompt in asked]


@pytest.mark.unit
@pytest.mark.parametrize("asked", [None, 64, 1_000_000])
async def test_the_context_is_at_most_the_checkpoints(asked, chat_folder):
    most = json.loads((chat_folder / "config.json").read_text())["max_seq_len"]
    torch = TorchEngine.load(chat_folder, TorchEngineOptions(max_model_len=asked))
    # Of vLLM itself nothing is needed before the start.
    vllm = VllmEngine(chat_folder, VllmEngineOptions(max_model_len=asked))
    assert torch.max_model_len == vllm.max_model_len == min(asked or most, most)


async def test_greedy_replies_of_mixed_lengths_at_once_equal_torch_alone(
    chat, published, tokenizer
):
    asked = prompts(tokenizer, PLACES + QUEUE)
    greedy = {**GREEDY, "constraint": AllowedIds(tokenizer.text_ranges())}
    expected = await torch_alone(published["chat"], asked, **greedy)
    assert len({tuple(reply) for reply in expected}) > len(asked) // 2
    replies = await asyncio.gather(*(collect(chat, prompt, **greedy) for prompt in asked))
    assert [ids for ids, _ in replies] == expected


async def test_greedy_speech_under_the_grammar_and_the_filter_equals_torch_alone(
    tts, published, tokenizer
):
    asked = prompts(tokenizer, PLACES)
    rules = {"constraint": AudioGrammar(min_groups=3), "repetition": RepetitionFilter()}
    spoken = {**GREEDY, **rules, "max_tokens": 40, "stop_token_ids": (3,)}
    expected = await torch_alone(published["tts"], asked, **spoken)
    replies = await asyncio.gather(*(collect(tts, prompt, **spoken) for prompt in asked))
    assert [ids for ids, _ in replies] == expected


async def test_rules_hold_for_every_sampled_token(tts, chat, tokenizer):
    rules = {"constraint": AudioGrammar(min_groups=2), "repetition": RepetitionFilter()}
    replies = await asyncio.gather(
        *(collect(tts, [1, 4, 5], seed=seed, max_tokens=60, **rules) for seed in range(6))
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
    ids, _ = await collect(chat, [1, 4], seed=5, temperature=2, top_k=0, constraint=text_only)
    assert ids
    assert all(4 < token < tokenizer.size for token in ids)


async def test_a_seed_fixes_the_reply_whatever_else_runs(chat, tokenizer):
    asked = prompts(tokenizer, 6)
    sampled = {"temperature": 1.0, "max_tokens": 20, "stop_token_ids": ()}
    alone, _ = await collect(chat, asked[2], seed=11, **sampled)
    other, _ = await collect(chat, asked[2], seed=2**64 - 1, **sampled)
    together = await asyncio.gather(
        *(collect(chat, prompt, seed=9 + i, **sampled) for i, prompt in enumerate(asked))
    )
    assert together[2][0] == alone != other


async def test_a_reply_comes_in_deltas_while_it_is_written(chat):
    async with aclosing(chat.generate(GenerateRequest("r", (1, 4, 6), ENDLESS))) as deltas:
        first = await anext(deltas)
        second = await anext(deltas)
    assert len(first.token_ids) + len(second.token_ids) < 100
    assert first.token_ids


async def test_a_stop_id_ends_the_reply_and_is_not_part_of_it(chat, tokenizer):
    prompt = prompts(tokenizer, 2)[-1]
    ids, last = await collect(chat, prompt, **{**GREEDY, "max_tokens": 8})
    assert (len(ids), last.finish_reason) == (8, FinishReason.LENGTH)
    position = ids.index(ids[3])
    stopped, last = await collect(chat, prompt, **{**GREEDY, "stop_token_ids": (ids[3],)})
    assert stopped == ids[:position]
    assert last.finish_reason is FinishReason.STOP
    assert last.usage.output_tokens == position
    assert last.usage.prompt_tokens == len(prompt)
    assert last.usage.first_token_seconds > 0


async def test_a_prompt_that_begins_like_an_earlier_one_is_found_in_the_prefix_cache(
    chat, kind, published
):
    prompt = [101, *range(300, 500)]
    longer = [*prompt, *range(600, 640)]
    [expected] = await torch_alone(published["chat"], [longer], **GREEDY)
    _, last = await collect(chat, prompt, **{**GREEDY, "max_tokens": 1})
    assert last.usage.cached_tokens == 0
    for known in (len(prompt), len(longer) - 1):
        ids, last = await collect(chat, longer, **GREEDY)
        assert last.usage.cached_tokens == known // GRAIN[kind] * GRAIN[kind]
        assert ids == expected


async def test_prefill_of_a_growing_prompt_leaves_its_tail_to_generate(chat, kind, published):
    def held(length):
        return length // GRAIN[kind] * GRAIN[kind]

    prompt = [102, *range(300, 500)]
    first = await chat.prefill(tuple(prompt[:50]))
    second = await chat.prefill(tuple(prompt[:150]))
    assert (first.cached_tokens, first.computed_tokens) == (0, held(50))
    assert (second.cached_tokens, second.computed_tokens) == (held(50), held(150) - held(50))
    ids, last = await collect(chat, prompt, **GREEDY)
    assert last.usage.cached_tokens == held(150)
    assert [ids] == await torch_alone(published["chat"], [prompt], **GREEDY)
    assert chat.stats().running == 0


async def test_closed_and_cancelled_replies_free_their_places_at_once(chat, published):
    async def consume():
        async with aclosing(chat.generate(GenerateRequest("r", (103,), ENDLESS))) as deltas:
            async for _ in deltas:
                pass

    replies = [chat.generate(GenerateRequest("r", (103,), ENDLESS)) for _ in range(PLACES // 2)]
    for reply in replies:
        await anext(reply)
    tasks = [asyncio.create_task(consume()) for _ in range(PLACES // 2 + 2)]
    await until(lambda: (chat.stats().running, chat.stats().waiting) == (PLACES, 2))
    for reply in replies:
        await reply.aclose()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    ids, last = await collect(chat, [104], **GREEDY)
    # To their ends the cancelled replies would hold their places for several seconds more.
    assert last.usage.queue_seconds < 2
    assert [ids] == await torch_alone(published["chat"], [[104]], **GREEDY)
    await until(lambda: (chat.stats().running, chat.stats().waiting) == (0, 0))


async def test_a_cancelled_prefill_frees_its_place(chat):
    task = asyncio.create_task(chat.prefill(tuple([105] * (CONTEXT - 1))))
    await until(lambda: chat.stats().running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: chat.stats().running == 0)


async def test_a_full_queue_refuses_and_recovers(chat, tokenizer):
    [prompt] = prompts(tokenizer, 1)
    async with AsyncExitStack() as closing:
        for _ in range(PLACES):
            reply = chat.generate(GenerateRequest("r", tuple(prompt), ENDLESS))
            await closing.enter_async_context(aclosing(reply))
            await anext(reply)
        queued = [asyncio.create_task(collect(chat, prompt, **GREEDY)) for _ in range(QUEUE)]
        await until(lambda: chat.stats().waiting == QUEUE)
        with pytest.raises(EngineOverloadedError):
            await collect(chat, prompt, **GREEDY)
        with pytest.raises(EngineOverloadedError):
            await chat.prefill(tuple(prompt))
    for ids, last in await asyncio.gather(*queued):
        assert len(ids) == 16
        assert last.usage.queue_seconds > 0


async def test_the_context_length_bounds_prompt_and_reply(chat):
    assert chat.max_model_len == CONTEXT
    with pytest.raises(PromptTooLongError) as caught:
        await collect(chat, [5] * CONTEXT)
    assert (caught.value.length, caught.value.limit) == (CONTEXT, CONTEXT)
    with pytest.raises(PromptTooLongError):
        await chat.prefill((5,) * CONTEXT)
    ids, last = await collect(chat, [5] * (CONTEXT - 4), **GREEDY)
    assert (len(ids), last.finish_reason) == (4, FinishReason.LENGTH)


@pytest.mark.parametrize("prompt", [[], [-1], [74752]])
async def test_a_prompt_outside_the_vocabulary_is_refused(chat, prompt):
    with pytest.raises(InvalidPromptError):
        await collect(chat, prompt)
    with pytest.raises(InvalidPromptError):
        await chat.prefill(tuple(prompt))


async def test_a_closed_engine_ends_its_requests_and_refuses_more(kind, published):
    async with running(kind, published["chat"], max_batch=1) as engine:
        replies = engine.generate(GenerateRequest("r", (5,), ENDLESS))
        await anext(replies)
        waiting = asyncio.create_task(collect(engine, [5]))
        await until(lambda: engine.stats().waiting == 1)
        await engine.close()
        with pytest.raises(EngineClosedError):
            async for _ in replies:
                pass
        with pytest.raises(EngineClosedError):
            await waiting
        with pytest.raises(EngineClosedError):
            await collect(engine, [5])
        with pytest.raises(EngineClosedError):
            await engine.prefill((5,))
        await engine.close()


async def test_a_checkpoint_without_a_tie_flag_answers_with_its_own_head(
    chat, published, tokenizer, tmp_path
):
    tied = shutil.copytree(published["chat"], tmp_path / "tied")
    set_tied(tied, True)
    asked = prompts(tokenizer, 4)
    untied_replies = await torch_alone(published["chat"], asked, **GREEDY)
    for ours, theirs in zip(untied_replies, await torch_alone(tied, asked, **GREEDY), strict=True):
        assert ours != theirs
    assert [(await collect(chat, prompt, **GREEDY))[0] for prompt in asked] == untied_replies


@pytest.mark.golden
async def test_golden_replies_equal_the_references(kind, golden):
    case = golden / "09_step1_lm"
    inputs, outputs = np.load(case / "inputs.npz"), np.load(case / "outputs.npz")
    names = [key.removesuffix(".ids") for key in inputs if key.endswith(".ids")]
    assert names
    greedy = {**GREEDY, "max_tokens": 24}
    async with running(kind, case / "checkpoint") as engine:
        replies = await asyncio.gather(
            *(collect(engine, inputs[f"{name}.ids"].tolist(), **greedy) for name in names)
        )
    for name, (ids, _) in zip(names, replies, strict=True):
        assert ids == outputs[f"{name}.greedy_ids"].tolist()


@pytest.mark.vllm
@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM lives in .venv-vllm")
async def test_two_tensor_parallel_processes_reply_as_torch_does(published, tokenizer):
    asked = prompts(tokenizer, 4)
    script = Path(__file__).with_name("tensor_parallel_reply.py")
    # A process of its own: vLLM binds threads once a process, and each rank wants its core.
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, script, published["chat"]],
        input=json.dumps(asked),
        env={key: value for key, value in os.environ.items() if key != "VLLM_CPU_OMP_THREADS_BIND"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    replies = json.loads(done.stdout.splitlines()[-1])
    assert replies == await torch_alone(published["chat"], asked, **GREEDY)
