"""Calls over several pods: newcomers get their share, and no call is lost on the way to them."""

import asyncio
import contextlib
import struct

import pytest
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.clients import connect
from parley_core.server import Server
from parley_core.settings import ServiceSettings

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name


class Names(asyncio.DatagramProtocol):
    """A name server with one headless Service: every A question gets `addresses`."""

    def __init__(self):
        self.addresses = []
        self.asked = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        end = data.index(b"\0", 12) + 5
        kind = struct.unpack("!H", data[end - 4 : end - 2])[0]
        answers = self.addresses if kind == 1 else []
        self.asked += kind == 1
        reply = data[:2] + struct.pack("!5H", 0x8580, 1, len(answers), 0, 0) + data[12:end]
        for address in answers:
            packed = bytes(map(int, address.split(".")))
            reply += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + packed
        self.transport.sendto(reply, sender)


@pytest.fixture
async def names():
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.1", 0))
    made.port = transport.get_extra_info("sockname")[1]
    yield made
    transport.close()


@contextlib.asynccontextmanager
async def pod(servicer, address, port=0, **keepalive):
    made = Server(ServiceSettings(host=address, port=port, keepalive=keepalive), name="test")
    made.add(rpc.add_TokenizerServiceServicer_to_server, servicer, SERVICE)
    await made.start()
    await made.set_serving()
    try:
        yield made
    finally:
        await made.stop()


def count(servicer, calls, name):
    async def answer(request, context):
        calls[name] = calls.get(name, 0) + 1
        return pb.TokenizeResponse()

    servicer.on_tokenize = answer


async def test_a_new_pod_is_found_while_the_old_ones_stay_and_no_call_fails(names, make_servicer):
    calls = {}
    old, new = make_servicer(), make_servicer()
    count(old, calls, "old")
    count(new, calls, "new")
    names.addresses = ["127.0.0.1"]
    async with pod(old, "127.0.0.1", max_connection_age_s=1) as first:
        target = f"dns://127.0.0.1:{names.port}/stage.test:{first.port}"
        async with connect(target) as channel, asyncio.timeout(30):
            stub = rpc.TokenizerServiceStub(channel)
            stream = stub.StreamingTokenize()
            await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="a")))
            await stream.read()
            async with pod(new, "127.0.0.2", first.port, max_connection_age_s=1):
                names.addresses = ["127.0.0.1", "127.0.0.2"]
                # Nothing breaks: that the old connection has grown old is all that happens.
                while calls.get("new", 0) < 50:
                    await stub.Tokenize(pb.TokenizeRequest())
                share = calls["old"]
                for _ in range(20):
                    await stub.Tokenize(pb.TokenizeRequest())
                assert calls["old"] > share, "the old pod keeps its share"
                # A call that outlives its connection's age is not cut off.
                await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="b")))
                assert (await stream.read()).flushed.flush_id == "b"
                old.release.set()
                await stream.done_writing()
                await stream.code()


async def test_without_an_age_names_are_not_asked_for_again(names, make_servicer):
    calls = {}
    servicer = make_servicer()
    count(servicer, calls, "old")
    names.addresses = ["127.0.0.1"]
    async with pod(servicer, "127.0.0.1", max_connection_age_s=None) as only:
        target = f"dns://127.0.0.1:{names.port}/stage.test:{only.port}"
        async with connect(target) as channel:
            stub = rpc.TokenizerServiceStub(channel)
            await stub.Tokenize(pb.TokenizeRequest(), wait_for_ready=True, timeout=10)
            asked = names.asked
            for _ in range(200):
                await stub.Tokenize(pb.TokenizeRequest())
            assert names.asked == asked
