import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeStages, fake_stages  # noqa: E402

from parley.audio.v1 import audio_pb2  # noqa: E402
from parley.conversation.v1 import (  # noqa: E402
    conversation_pb2_grpc,
    speech_pb2,
    speech_pb2_grpc,
)
from parley_core.audio import wav_bytes  # noqa: E402
from parley_core.testing import serving  # noqa: E402
from parley_gateway.conversation_service import ConversationService  # noqa: E402
from parley_gateway.server import build_server  # noqa: E402
from parley_gateway.settings import GatewaySettings  # noqa: E402


@dataclass
class Gateway:
    """A live gateway in front of fake stages."""

    stages: FakeStages
    channel: grpc.aio.Channel
    conversations: ConversationService
    settings: GatewaySettings

    @property
    def speech(self):
        return speech_pb2_grpc.SpeechServiceStub(self.channel)

    @property
    def conversation(self):
        return conversation_pb2_grpc.ConversationServiceStub(self.channel)


def settings_for(stages: FakeStages, **over) -> GatewaySettings:
    deadlines = {"tokenizer": 5, "chat": 10, "tts": 10, "vocoder": 10, "context": 5}
    targets = {
        name: {"address": address, "deadline_s": deadlines[name]}
        for name, address in stages.addresses.items()
    }
    return GatewaySettings(stages=targets, **over)


@pytest.fixture
async def gateway():
    async with fake_stages() as stages, AsyncExitStack() as closing:
        settings = settings_for(stages)
        server, conversations = await build_server(settings, closing)
        conversations.warm_up()
        channel = await closing.enter_async_context(serving(server))
        yield Gateway(stages, channel, conversations, settings)
        await stages.idle()


def recording(number: int = 0, *, rate: int = 16_000, seconds: float = 0.5):
    """A recording that no other number has."""
    noise = np.random.default_rng(number).normal(0, 0.1, round(rate * seconds))
    return speech_pb2.Recording(
        format=audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER),
        content=wav_bytes(noise.astype(np.float32), rate),
    )
