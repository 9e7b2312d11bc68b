"""The client's side of StreamingConverse."""

import asyncio
from contextlib import asynccontextmanager

from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.audio import float_to_pcm16
from parley_gateway.admission.ticket import Kind, Ticket
from parley_gateway.opening import open_conversation
from parley_gateway.session import SessionRunner
from parley_gateway.stages.quota import Place


def pcm_format(rate=16_000, channels=1):
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
        sample_rate_hertz=rate,
        channel_count=channels,
    )


def setup(**fields):
    fields.setdefault("input_format", pcm_format())
    return pb.StreamingConverseRequest(setup=pb.ConversationSetup(**fields))


def config(**policy):
    policy.setdefault("end_of_turn_silence", {"nanos": 200_000_000})
    return pb.ConversationConfig(turn_policy=pb.TurnPolicy(**policy))


async def runner_of(gateway, write):
    """A conversation that tells its client by `write`."""
    ticket = Ticket("default", Kind.CONVERSATION, Place("s", "h"), None, "other", 5.0)

    async def admit(session, resumed):
        return ticket

    opening = await open_conversation(
        setup().setup, gateway.clients, gateway.settings, "default", admit
    )
    return SessionRunner(opening, gateway.clients, gateway.settings, None, write, turn_prefix="t")


class Talk:
    """The client of one stream."""

    def __init__(self, call):
        self.call = call
        self.seen = []

    async def send(self, **event):
        await self.call.write(pb.StreamingConverseRequest(**event))

    async def say(self, samples, packet=640):
        pcm = float_to_pcm16(samples)
        for begin in range(0, len(pcm), packet):
            await self.send(audio=pb.AudioInput(content=pcm[begin : begin + packet]))

    async def write(self, text):
        await self.send(text=pb.TextInput(text=text))

    async def until(self, kind):
        """The next response of this kind; those on the way are in `seen`."""
        async with asyncio.timeout(10):
            while True:
                response = await self.call.read()
                assert hasattr(response, "sequence"), f"the stream ended before {kind}"
                self.seen.append(response)
                if response.WhichOneof("event") == kind:
                    return response

    async def rest(self):
        """Everything up to the end of the stream."""
        async with asyncio.timeout(10):
            while hasattr(response := await self.call.read(), "sequence"):
                self.seen.append(response)
        return self.seen

    def kinds(self):
        return [each.WhichOneof("event") for each in self.seen]


@asynccontextmanager
async def talking(gateway, **fields):
    call = gateway.conversation.StreamingConverse()
    talk = Talk(call)
    await call.write(setup(**fields))
    try:
        yield talk
    finally:
        call.cancel()
