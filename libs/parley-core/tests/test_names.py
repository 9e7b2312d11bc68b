"""A service whose name comes and goes, as a headless Service's does with its pods."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import pytest
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.clients import connect
from parley_core.server import Server
from parley_core.settings import ClientSettings, ServiceSettings
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name


class Names(asyncio.DatagramProtocol):
    """A DNS server of one name: 127.0.0.1 when it is there, NXDOMAIN when it is not."""

    there = False
    asked = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked += 1
        end = data.index(b"\0", 12) + 5
        question, kind = data[12:end], data[end - 4 : end - 2]
        answers = self.there and kind == b"\0\1"
        code = 0x8400 if self.there else 0x8403
        head = data[:2] + struct.pack(">HHHHH", code, 1, int(answers), 0, 0)
        record = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 1, 4) + socket.inet_aton("127.0.0.1")
        self.transport.sendto(head + question + (record if answers else b""), addr)


@asynccontextmanager
async def names():
    transport, served = await asyncio.get_running_loop().create_datagram_endpoint(
        Names, local_addr=("127.0.0.1", 0)
    )
    try:
        yield served, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def test_a_service_is_found_soon_after_its_name_has_come(servicer):
    server = Server(ServiceSettings(), name="test")
    server.add(rpc.add_TokenizerServiceServicer_to_server, servicer, SERVICE)
    await server.start()
    await server.set_serving()
    async with names() as (served, port):
        address = f"dns://127.0.0.1:{port}/stage.test:{server.port}"
        async with connect(ClientSettings(address=address)) as channel:
            stub = rpc.TokenizerServiceStub(channel)
            # Asked this often, gRPC by itself would wait for ten seconds and more.
            async with asyncio.timeout(30):
                while served.asked < 14:
                    async with rpc_fails("UNREACHABLE"):
                        await stub.Tokenize(pb.TokenizeRequest())
                    await asyncio.sleep(0.2)
            served.there = True
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(30):
                while True:
                    try:
                        await stub.Tokenize(pb.TokenizeRequest())
                        break
                    except Exception:
                        await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() - began < 4.0
    await server.stop()
