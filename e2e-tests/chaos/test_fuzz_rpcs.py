"""Random bytes and mutated messages as requests of every RPC that the six services have."""

import asyncio
import importlib
from collections import Counter
from contextlib import suppress
from random import Random

import grpc
import pytest
from chaos_fuzz import broken, fill, noise
from chaos_talk import talking
from google.protobuf.message_factory import GetMessageClass
from grpc._cython import cygrpc
from grpc_status import rpc_status
from parley_client import Client

pytestmark = pytest.mark.chaos

# Package of the contract, its services' file, and who serves it.
CONTRACTS = (
    ("parley.conversation.v1.conversation_pb2", "gateway"),
    ("parley.conversation.v1.speech_pb2", "gateway"),
    ("parley.tokenizer.v1.tokenizer_pb2", "tokenizer"),
    ("parley.chat.v1.chat_pb2", "chat-llm"),
    ("parley.tts.v1.tts_pb2", "tts"),
    ("parley.vocoder.v1.vocoder_pb2", "vocoder"),
    ("parley.context.v1.context_pb2", "asr-context"),
    ("parley.context.v1.quota_pb2", "asr-context"),
)
# What no request of a client may bring about.
OUR_FAULT = {"UNKNOWN", "INTERNAL", "DATA_LOSS"}
CALL_S = 20.0


def methods():
    for module, service in CONTRACTS:
        for descriptor in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
            for method in descriptor.methods:
                yield service, descriptor.full_name, method


METHODS = list(methods())


async def call(channel, path, method, requests):
    """Sends raw requests; how the call ended, and whether it said why."""
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    start = kinds[method.client_streaming, method.server_streaming](
        path, request_serializer=None, response_deserializer=None
    )
    if method.client_streaming:
        running = start(timeout=CALL_S)
        sending = asyncio.ensure_future(send(running, requests))
    else:
        running = start(requests[0], timeout=CALL_S)
        sending = None
    try:
        if method.server_streaming:
            # What is answered by ever more sound has been taken for sense.
            seen = 0
            async for _ in running:
                seen += 1
                if seen >= 20:
                    running.cancel()
        else:
            await running
    except grpc.aio.AioRpcError as error:
        return error.code().name, error
    except asyncio.CancelledError:
        if not running.cancelled():
            raise
        return "OK", None
    finally:
        if sending:
            sending.cancel()
    return "OK", None


async def send(call, requests):
    """Sends as `parley_core.testing.exchange` does, but bytes."""
    with suppress(grpc.aio.AioRpcError, cygrpc.InternalError):
        await call.wait_for_connection()
        for request in requests:
            await call._cython_call.send_serialized_message(request)
        await call.done_writing()


@pytest.mark.parametrize(
    ("service", "name", "method"), METHODS, ids=[f"{s}.{m.name}" for s, _, m in METHODS]
)
async def test_no_request_is_answered_by_a_defect(rig, book, request, service, name, method):
    count = request.config.getoption("--fuzz", 0)
    expected = "OK or a typed refusal; never INTERNAL or UNKNOWN; the process lives"
    message_class = GetMessageClass(method.input_type)
    path = f"/{name}/{method.name}"
    random = Random(f"{name}.{method.name}")
    address, pid = rig.services[service]["address"], rig.pid(service)
    ended: Counter[str] = Counter()

    def messages():
        many = random.choice((1, 2, 5)) if method.client_streaming else 1
        for _ in range(many):
            made = message_class()
            fill(random, made)
            kind = random.randrange(3)
            yield (
                noise(random)
                if not kind
                else broken(random, made)
                if kind == 1
                else (made.SerializeToString())
            )

    with book.fault(rig, f"{count} senseless requests to {service}.{method.name}", expected) as row:
        async with grpc.aio.insecure_channel(address) as channel:
            for _ in range(count):
                requests = list(messages())
                code, error = await call(channel, path, method, requests)
                ended[code] += 1
                assert code not in OUR_FAULT, (error, requests)
                if error is not None and code not in ("CANCELLED", "DEADLINE_EXCEEDED"):
                    assert rpc_status.from_call(error), (error, requests)
        assert rig.pid(service) == pid, "the process died"
        row.happened = ", ".join(f"{n} {code}" for code, n in ended.most_common())


async def test_after_all_that_a_conversation_is_held(rig, book):
    with book.fault(rig, "all of the above", "the next conversation is good") as row:
        async with Client(rig.address) as client, talking(client) as talk:
            failed = await talk.recovered()
        row.happened = f"{failed} failed, next good"
