"""The client's side of the Realtime endpoint, by the stock OpenAI SDK."""

import asyncio
import base64
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
from openai import AsyncOpenAI
from parley_core.audio import float_to_pcm16
from parley_gateway.web.http_server import HttpServer

RATE = 24_000
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}


@asynccontextmanager
async def http_port(gateway):
    """Serves the HTTP port of a gateway; yields its host and port."""
    server = HttpServer(gateway.conversations, gateway.clients, gateway.settings)
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()


@asynccontextmanager
async def connected(address, *, key="none", **query):
    """Connects as any program does that was written for OpenAI."""
    client = AsyncOpenAI(
        api_key=key, base_url=f"http://{address}/v1", websocket_base_url=f"ws://{address}/v1"
    )
    async with client.realtime.connect(model="step-audio", extra_query=query) as connection:
        yield Caller(connection)
    await client.close()


class Raw:
    """A WebSocket that sends what no SDK would."""

    def __init__(self, socket):
        self.socket = socket

    async def until(self, kind):
        while True:
            event = await self.socket.receive_json(timeout=10)
            if event["type"] == kind:
                return event


@asynccontextmanager
async def connected_raw(address):
    """Connects without an SDK, and waits for the session."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"http://{address}/v1/realtime") as socket,
    ):
        talk = Raw(socket)
        await talk.until("session.created")
        yield talk


def base64_of(samples: np.ndarray) -> str:
    return base64.b64encode(float_to_pcm16(samples)).decode()


class Caller:
    """One connection, with all that came over it."""

    def __init__(self, connection):
        self.connection = connection
        self.seen = []

    async def until(self, kind):
        """The next event of this type."""
        async with asyncio.timeout(10):
            while True:
                event = await self.connection.recv()
                self.seen.append(event)
                if event.type == kind:
                    return event

    async def ever(self, kind):
        """An event of this type, whether it has come yet or not."""
        return next(iter(self.of(kind)), None) or await self.until(kind)

    async def update(self, **session):
        await self.connection.session.update(session={"type": "realtime", **session})
        return (await self.until("session.updated")).session

    async def say(self, samples, packet=2400):
        for begin in range(0, len(samples), packet):
            piece = base64_of(samples[begin : begin + packet])
            await self.connection.input_audio_buffer.append(audio=piece)

    async def write(self, text):
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.connection.conversation.item.create(item=item)
        await self.connection.response.create()

    def kinds(self):
        return [each.type for each in self.seen]

    def of(self, kind):
        return [each for each in self.seen if each.type == kind]
