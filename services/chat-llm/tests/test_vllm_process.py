"""The service as a process of its own on vLLM, whose engine runs in processes beneath it."""

import asyncio
import importlib.util
import json
import os
import sys
from contextlib import asynccontextmanager

import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.chat.v1 import chat_pb2, chat_pb2_grpc, message_pb2

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM lives in .venv-vllm"),
]
QUESTIONS = ["hello", "what is the weather like today?" * 5, "你好，今天天气怎么样？"]


@asynccontextmanager
async def serving(weights, log, **settings):
    """Address and process of a service that serves; its output goes to `log`, line by line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "parley_chat_llm"),
        env=os.environ
        | {"PARLEY_CHAT_LLM_WEIGHTS": str(weights), "PARLEY_CHAT_LLM_DRAIN_TIMEOUT_S": "3"}
        | {f"PARLEY_CHAT_LLM_{key}": value for key, value in settings.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async for line in process.stdout:
            log.append(line.decode())
            if '"event": "serving"' in log[-1]:
                break
        async with grpc.aio.insecure_channel(f"127.0.0.1:{json.loads(log[-1])['port']}") as channel:
            yield channel, process
    finally:
        if process.returncode is None:
            process.terminate()
        log += [line.decode() async for line in process.stdout]
        await process.wait()


async def answers(channel):
    stub = chat_pb2_grpc.ChatServiceStub(channel)

    async def answer(question):
        request = chat_pb2.GenerateRequest(
            messages=[
                message_pb2.Message(
                    role=message_pb2.ROLE_USER, parts=[message_pb2.Part(text=question)]
                )
            ],
            sampling=chat_pb2.Sampling(temperature=0, max_output_tokens=24),
        )
        return "".join([response.text_delta async for response in stub.Generate(request)])

    return await asyncio.gather(*map(answer, QUESTIONS))


async def test_an_engine_that_dies_ends_the_service_so_that_another_one_is_started(weights):
    log = []
    async with serving(weights, log, ENGINE="vllm") as (_, process):
        beneath = psutil.Process(process.pid).children(recursive=True)
        next(each for each in beneath if "EngineCore" in each.name()).kill()
        log += [line.decode() async for line in process.stdout]
        assert await process.wait() == 5
    assert "chat-llm: the engine has ended by itself\n" in log
    assert not psutil.wait_procs(beneath, timeout=10)[1]


async def test_replies_are_torchs_and_sigterm_ends_every_process_quietly(weights):
    async with serving(weights, []) as (channel, _):
        expected = await answers(channel)
    assert all(expected)
    log = []
    async with serving(weights, log, ENGINE="vllm") as (channel, process):
        health = health_pb2_grpc.HealthStub(channel)
        reported = await health.Check(health_pb2.HealthCheckRequest())
        assert reported.status == health_pb2.HealthCheckResponse.SERVING
        assert await answers(channel) == expected
        beneath = psutil.Process(process.pid).children(recursive=True)
    assert len(beneath) >= 2
    assert process.returncode == 0
    assert not psutil.wait_procs(beneath, timeout=10)[1]
    assert "Traceback" not in "".join(log)
