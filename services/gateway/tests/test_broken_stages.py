"""Stages that break their contract: they leave a call half done, or say what is no message."""

from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from gateway_fakes import FakeTts, FakeVocoder, fake_stages
from gateway_harness import running_gateway, silence, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb

pytestmark = pytest.mark.contract


async def reply_fails(talk, stage):
    failed = (await talk.until("response_completed")).response_completed
    assert failed.status == pb.RESPONSE_STATUS_FAILED
    assert failed.error.reason == "STAGE_FAILED"
    assert failed.error.metadata["stage"] == stage


@pytest.mark.parametrize(
    ("fake", "method", "last"),
    [
        (FakeTts, "StreamingSynthesize", "ready"),
        (FakeTts, "StreamingSynthesize", "spoken"),
        (FakeVocoder, "StreamingDecode", "ready"),
        (FakeVocoder, "StreamingDecode", "audio"),
    ],
)
async def test_a_stage_that_ends_its_call_half_way_ends_the_reply(monkeypatch, fake, method, last):
    whole = getattr(fake, method)

    async def half(self, requests, context):
        async for response in whole(self, requests, context):
            yield response
            if response.WhichOneof("event") == last:
                return

    monkeypatch.setattr(fake, method, half)
    async with fake_stages() as stages, running_gateway(stages) as gateway:
        # More than waits in the queues between the stages.
        stages.chat.repeat = 10
        async with talking(gateway) as talk:
            await talk.write("hello")
            await reply_fails(talk, "tts" if fake is FakeTts else "vocoder")
        await stages.idle()


class Garbage(grpc.GenericRpcHandler):
    """Answers each call with bytes that no message has."""

    def service(self, details):
        async def stream(requests, context):
            async for _ in requests:
                yield b"\xff\xff\xff"

        async def single(request, context):
            yield b"\xff\xff\xff"

        if details.method.endswith("Generate"):
            return grpc.unary_stream_rpc_method_handler(single)
        return grpc.stream_stream_rpc_method_handler(stream)


@asynccontextmanager
async def garbage():
    """Serves it; yields its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Garbage()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("stage", ["tokenizer", "chat", "tts", "vocoder"])
async def test_a_stage_that_cannot_be_read_ends_the_reply_and_not_the_conversation(stage):
    async with garbage() as address, fake_stages() as stages:
        stages.addresses[stage] = address
        async with running_gateway(stages) as gateway, talking(gateway, config=config()) as talk:
            for _ in range(2):
                if stage == "tokenizer":
                    await talk.say(np.concatenate([silence(0.5), vowels(0.8), silence(0.5)]))
                else:
                    await talk.write("hello")
                await reply_fails(talk, stage)
