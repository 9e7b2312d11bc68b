"""A live gateway in front of fake stages, and recordings to ask it with."""

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
from gateway_fakes import FakeStages, fake_stages
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import (
    conversation_pb2_grpc,
    speech_pb2,
    speech_pb2_grpc,
)
from parley_core.audio import wav_bytes
from parley_core.testing import serving
from parley_gateway.conversation_service import ConversationService
from parley_gateway.server import build_server
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages, open_stages
from parley_gateway.tools.toolbox import open_toolbox


@dataclass
class Gateway:
    """A live gateway in front of fake stages."""

    stages: FakeStages
    channel: grpc.aio.Channel
    conversations: ConversationService
    settings: GatewaySettings
    clients: Stages

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


@asynccontextmanager
async def running_gateway(stages: FakeStages, *, tools_wait: float = 30.0, **over):
    """Serves a gateway in front of these stages, after its tool servers or `tools_wait` seconds."""
    async with AsyncExitStack() as closing:
        settings = settings_for(stages, **over)
        clients = await open_stages(settings.stages, closing)
        toolbox = await closing.enter_async_context(open_toolbox(settings.functions))
        await toolbox.missing(tools_wait)
        server, conversations = build_server(settings, clients, toolbox)
        conversations.warm_up()
        channel = await closing.enter_async_context(serving(server))
        yield Gateway(stages, channel, conversations, settings, clients)


@asynccontextmanager
async def whole_gateway():
    """Serves a gateway and its stages; no call may be left at the end."""
    async with fake_stages() as stages, running_gateway(stages) as gateway:
        yield gateway
        await stages.idle()


def recording(number: int = 0, *, rate: int = 16_000, seconds: float = 0.5):
    """A recording that no other number has."""
    noise = np.random.default_rng(number).normal(0, 0.1, round(rate * seconds))
    return speech_pb2.Recording(
        format=audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER),
        content=wav_bytes(noise.astype(np.float32), rate),
    )


def vowels(seconds: float, *, rate: int = 16_000, pitch: float = 120.0) -> np.ndarray:
    """Harmonics under moving formants, four syllables a second: Silero takes it for speech."""
    t = np.arange(round(seconds * rate)) / rate
    fundamental = pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t))
    phase = np.cumsum(fundamental) / rate
    formants = (
        (500 + 250 * np.sin(2 * np.pi * 2.1 * t), 80),
        (1500 + 500 * np.sin(2 * np.pi * 1.3 * t + 1), 110),
        (2500, 160),
    )
    wave = np.zeros(len(t))
    for number in range(1, 40):
        frequency = number * fundamental
        gain = sum(1 / (1 + ((frequency - f) / width) ** 2) for f, width in formants)
        wave += gain / np.sqrt(number) * np.sin(2 * np.pi * number * phase)
    wave *= 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t - 1.5)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def silence(seconds: float, *, rate: int = 16_000) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.float32)
