"""How a stream ends in the midst of a reply."""

import asyncio

import pytest
from gateway_talk import runner_of
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.errors import Unavailable
from parley_gateway.turns import events as ev

pytestmark = pytest.mark.contract


async def test_a_reply_that_fails_because_the_stream_ends_begins_nothing(gateway, monkeypatch):
    calling, fed = asyncio.Event(), []

    async def generate(*args, **kwargs):
        calling.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As a call does that fails and is cancelled in one.
            raise Unavailable("gone", reason="STAGE_LOST") from None

    async def requests():
        yield pb.StreamingConverseRequest(text=pb.TextInput(text="hello"))
        await asyncio.Event().wait()

    async def write(response):
        pass

    monkeypatch.setattr(gateway.clients.chat, "generate", generate)
    runner = await runner_of(gateway, write)
    feed = runner._controller.feed
    monkeypatch.setattr(
        runner._controller, "feed", lambda event, now: [fed.append(event), *feed(event, now)][1:]
    )
    running = asyncio.ensure_future(runner.run(requests()))
    await calling.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [type(each) for each in fed] == [ev.TextReceived]
