"""A server that breaks the contract: the SDK tells it as any other failure."""

import asyncio

import grpc
import pytest
from parley.conversation.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    speech_pb2,
    speech_pb2_grpc,
)
from parley_client import Client, NotFound, ServerError

pytestmark = pytest.mark.contract

ODD = conversation_pb2.AudioOutput(content=b"odd")


class BrokenServer(
    speech_pb2_grpc.SpeechServiceServicer, conversation_pb2_grpc.ConversationServiceServicer
):
    async def GetVoice(self, request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such voice")

    async def Ask(self, request, context):
        yield speech_pb2.AskResponse(started=speech_pb2.AskStarted())
        yield speech_pb2.AskResponse(audio=ODD)

    async def Synthesize(self, request, context):
        yield speech_pb2.SynthesizeResponse(started=speech_pb2.SynthesizeStarted())
        yield speech_pb2.SynthesizeResponse(audio=ODD)

    async def ListTurns(self, request, context):
        return conversation_pb2.ListTurnsResponse(next_page_token="the same")


@pytest.fixture
async def client():
    server = grpc.aio.server()
    speech_pb2_grpc.add_SpeechServiceServicer_to_server(BrokenServer(), server)
    conversation_pb2_grpc.add_ConversationServiceServicer_to_server(BrokenServer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(f"127.0.0.1:{port}") as client:
        yield client
    await server.stop(None)


async def test_details_that_cannot_be_read_leave_the_status(client):
    with pytest.raises(NotFound, match="there is no such voice"):
        await client.voice("x")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.ask(text="x").collect(),
        lambda client: client.synthesize("x").collect(),
        lambda client: client.turns("s"),
    ],
    ids=["half a sample in an answer", "half a sample in speech", "pages without an end"],
)
async def test_what_breaks_the_contract_is_a_broken_server(client, call):
    with pytest.raises(ServerError) as caught:
        await asyncio.wait_for(call(client), 10)
    assert caught.value.reason == "PROTOCOL"
