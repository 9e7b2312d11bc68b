"""Fuzz inside conversations that have begun: audio frames, requests, WebSocket events."""

import asyncio
import base64
import json
from collections import Counter
from random import Random

import aiohttp
import grpc
import numpy as np
import pytest
from chaos_fuzz import fill, json_noise, noise
from chaos_talk import RATE, talking
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley.conversation.v1 import conversation_pb2_grpc
from parley_client import Client, ParleyError
from parley_client.errors import typed_errors
from parley_core.testing import exchange

pytestmark = pytest.mark.chaos

OUR_FAULT = {"UNKNOWN", "INTERNAL", "DATA_LOSS"}
EVENTS = (
    "session.update", "input_audio_buffer.append", "input_audio_buffer.commit",
    "input_audio_buffer.clear", "conversation.item.create", "conversation.item.truncate",
    "conversation.item.delete", "conversation.item.retrieve", "response.create",
    "response.cancel", "parley.playback", "no.such.event", "",
)  # fmt: skip
FIELDS = (
    "session", "audio", "item", "item_id", "content_index", "audio_end_ms", "response",
    "response_id", "event_id", "previous_item_id", "played_ms", "finished", "type",
)  # fmt: skip


def frames(random, channels):
    """Audio as no microphone gives it."""
    length = random.choice((1, 2, 7, 160, 320, 480, 3200, 16_000)) * channels
    match random.randrange(6):
        case 0:
            return random.randbytes(2 * length)
        case 1:
            return np.full(length, random.choice((-32768, 32767, 0, 1)), "<i2").tobytes()
        case 2:
            return np.tile(np.array([-32768, 32767], "<i2"), length)[:length].tobytes()
        case 3:
            return b""
        case 4:
            return random.randbytes(random.choice((65_536, 1024)))
        case _:
            wave = np.sin(np.arange(length) * random.random()) * 40_000
            return np.clip(wave, -32768, 32767).astype("<i2").tobytes()


async def test_no_audio_frame_breaks_a_gateway(rig, book, request):
    count = request.config.getoption("--fuzz", 0)
    random = Random(1)
    ended: Counter[str] = Counter()
    expected = "taken, or the stream ends typed; never INTERNAL"
    with book.fault(rig, f"{count} streams of fuzzed audio frames", expected) as row:
        async with grpc.aio.insecure_channel(rig.address) as channel:
            stub = conversation_pb2_grpc.ConversationServiceStub(channel)
            for _ in range(count):
                rate = random.choice((8000, 11_025, 16_000, 44_100, 48_000, 192_000, 0, 7, 2**30))
                channels = random.choice((1, 1, 2, 6, 0, 999))
                form = audio_pb2.AudioFormat(
                    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
                    sample_rate_hertz=rate,
                    channel_count=channels,
                )
                sent = [
                    pb.StreamingConverseRequest(
                        audio=pb.AudioInput(
                            content=frames(random, min(max(channels, 1), 8)),
                            end_of_stream=random.random() < 0.05,
                        )
                    )
                    for _ in range(random.randrange(30))
                ]
                if random.random() < 0.2:
                    # An odd length: no whole samples.
                    odd = pb.AudioInput(content=random.randbytes(321))
                    sent.append(pb.StreamingConverseRequest(audio=odd))
                setup = pb.StreamingConverseRequest(setup=pb.ConversationSetup(input_format=form))
                ended[await end_of(stub, [setup, *sent])] += 1
        assert not OUR_FAULT & {each.partition(" ")[0] for each in ended}, ended
        row.happened = ", ".join(f"{n} {each}" for each, n in ended.most_common(5))


async def test_no_request_breaks_a_conversation_that_has_begun(rig, book, request):
    count = request.config.getoption("--fuzz", 0)
    random = Random(2)
    ended: Counter[str] = Counter()
    expected = "a notice, or the stream ends typed; never INTERNAL"
    with book.fault(rig, f"{count} conversations of fuzzed requests", expected) as row:
        async with grpc.aio.insecure_channel(rig.address) as channel:
            stub = conversation_pb2_grpc.ConversationServiceStub(channel)
            for _ in range(count):
                form = audio_pb2.AudioFormat(
                    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=RATE
                )
                requests = [
                    pb.StreamingConverseRequest(setup=pb.ConversationSetup(input_format=form))
                ]
                for _ in range(random.randrange(12)):
                    # One event a request; those that end every stream are tried elsewhere.
                    kind = random.choice(pb.StreamingConverseRequest.DESCRIPTOR.fields[1:])
                    made = pb.StreamingConverseRequest()
                    fill(random, getattr(made, kind.name))
                    getattr(made, kind.name).SetInParent()
                    if kind.name == "audio" and len(made.audio.content) % 2:
                        continue
                    requests.append(made)
                ended[await end_of(stub, requests)] += 1
        assert not OUR_FAULT & {each.partition(" ")[0] for each in ended}, ended
        row.happened = ", ".join(f"{n} {each}" for each, n in ended.most_common(5))


async def end_of(stub, requests):
    """How a stream ends that sends these and then closes."""
    call = stub.StreamingConverse(timeout=60)
    try:
        with typed_errors():
            for told in await exchange(call, requests):
                if told.WhichOneof("event") == "notice":
                    problem = told.notice.problem
                    assert _name(problem.code) not in OUR_FAULT, told
                if told.WhichOneof("event") == "response_completed":
                    error = told.response_completed.error
                    assert not error.code or _name(error.code) not in OUR_FAULT, told
    except ParleyError as error:
        # Without a reason of its own it is not typed.
        told = f"{error.code} {error.reason}"
        return told if error.reason != error.code else f"UNKNOWN {told}"
    return "OK"


def _name(number):
    return next(each.name for each in grpc.StatusCode if each.value[0] == number)


async def test_no_event_breaks_a_websocket(rig, book, request):
    count = request.config.getoption("--fuzz", 0)
    random = Random(3)
    kinds: Counter[str] = Counter()
    expected = "each answered by an event or ignored; the connection stays; never a server error"
    with book.fault(rig, f"{count} times 20 fuzzed WebSocket events", expected) as row:
        async with aiohttp.ClientSession() as http:
            for _ in range(count):
                async with http.ws_connect(f"{rig.page}v1/realtime") as socket:
                    for _ in range(20):
                        await send_noise(random, socket)
                    # It still answers what makes sense.
                    await socket.send_json({"type": "is.that.all", "event_id": "last"})
                    async with asyncio.timeout(30):
                        async for message in socket:
                            told = json.loads(message.data)
                            kinds[told["type"]] += 1
                            if told["type"] != "error":
                                continue
                            assert told["error"]["type"] != "server_error", told
                            if told["error"].get("event_id") == "last":
                                break
                        else:
                            raise AssertionError(f"closed with {socket.close_code}")
        refused = kinds["error"]
        row.happened = f"{count * 20} events, {refused} told as errors, no connection lost"


async def send_noise(random, socket):
    match random.randrange(10):
        case 0:
            await socket.send_bytes(noise(random))
        case 1:
            await socket.send_str(random.choice(("", "{", "null", "[" * 5000, '{"type": 1}')))
        case 2:
            await socket.send_str(json.dumps(json_noise(random)))
        case 3:
            audio = base64.b64encode(random.randbytes(2 * random.randrange(2000))).decode()
            await socket.send_json({"type": "input_audio_buffer.append", "audio": audio})
        case _:
            event = {"type": random.choice(EVENTS)}
            for name in random.sample(FIELDS[:-1], random.randrange(5)):
                event[name] = json_noise(random)
            await socket.send_str(json.dumps(event))


async def test_after_all_that_a_conversation_is_held(rig, book):
    with book.fault(rig, "all fuzzed streams", "the next conversation is good") as row:
        async with Client(rig.address) as client, talking(client) as talk:
            failed = await talk.recovered()
        row.happened = f"{failed} failed, next good"
