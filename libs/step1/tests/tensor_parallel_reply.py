"""Greedy replies of vLLM over two processes: prompts as JSON on stdin, ids on the last line."""

import asyncio
import json
import sys
from pathlib import Path

from engine_calls import GREEDY, collect
from step1.engine.vllm_engine import VllmEngine, VllmEngineOptions


async def main() -> None:
    options = VllmEngineOptions(dtype="float32", tensor_parallel_size=2, max_model_len=2048)
    engine = VllmEngine(Path(sys.argv[1]), options)
    try:
        await engine.start()
        asked = json.load(sys.stdin)
        replies = await asyncio.gather(*(collect(engine, prompt, **GREEDY) for prompt in asked))
    finally:
        await engine.close()
    print(json.dumps([ids for ids, _ in replies]))


if __name__ == "__main__":
    asyncio.run(main())
