"""How the engine tests call an engine."""

import asyncio

from step1.engine.contract import GenerateRequest, SamplingParams

GREEDY = {"temperature": 0, "max_tokens": 16, "stop_token_ids": ()}
ENDLESS = SamplingParams(max_tokens=1900, stop_token_ids=())


async def collect(engine, prompt, **params):
    """The ids of a reply and its last delta; only that one has a finish reason and usage."""
    request = GenerateRequest("test", tuple(prompt), SamplingParams(**params))
    ids, deltas = [], []
    async for delta in engine.generate(request):
        ids += delta.token_ids
        deltas.append(delta)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert [delta.usage for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return ids, deltas[-1]


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the engine's own thread changes it
            await asyncio.sleep(0.001)


def prompts(tokenizer, count):
    """Prompts of mixed lengths; every third holds audio ids, which no text tokenizer knows."""
    asked = []
    for i in range(count):
        heard = "".join(f"<audio_{(37 * i + k) % 5120}>" for k in range(5 * i)) if i % 3 else ""
        text = f"<s><|BOT|>human\n{heard}{'word ' * (7 * i)}{i}<|EOT|><|BOT|>assistant\n"
        asked.append(tokenizer.encode_template(text))
    return asked
