"""The five stages together, as the gateway holds them."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
from parley_core.clients import connect

from parley_gateway.settings import StagesSettings
from parley_gateway.stages import chat, context, tokenizer, tts, vocoder
from parley_gateway.stages.chat import ChatStage
from parley_gateway.stages.context import ContextStage
from parley_gateway.stages.quota import QuotaStage
from parley_gateway.stages.tokenizer import TokenizerStage
from parley_gateway.stages.tts import TtsStage
from parley_gateway.stages.vocoder import VocoderStage


@dataclass(frozen=True, slots=True)
class Stages:
    """Clients of all stages, and their channels by name."""

    tokenizer: TokenizerStage
    chat: ChatStage
    tts: TtsStage
    vocoder: VocoderStage
    context: ContextStage
    quota: QuotaStage
    channels: Mapping[str, grpc.aio.Channel]


async def open_stages(settings: StagesSettings, closing: AsyncExitStack) -> Stages:
    """Opens a channel to each stage; `closing` closes them. No stage needs to be up yet."""
    targets = {
        tokenizer.STAGE: settings.tokenizer,
        chat.STAGE: settings.chat,
        tts.STAGE: settings.tts,
        vocoder.STAGE: settings.vocoder,
        context.STAGE: settings.context,
    }
    channels: dict[str, grpc.aio.Channel] = {
        name: await closing.enter_async_context(connect(target)) for name, target in targets.items()
    }
    return Stages(
        TokenizerStage(channels[tokenizer.STAGE], settings.tokenizer.deadline_s),
        ChatStage(channels[chat.STAGE], settings.chat.deadline_s, settings.chat.silence_s),
        TtsStage(channels[tts.STAGE], settings.tts.deadline_s, settings.tts.silence_s),
        VocoderStage(
            channels[vocoder.STAGE], settings.vocoder.deadline_s, settings.vocoder.silence_s
        ),
        ContextStage(channels[context.STAGE], settings.context.deadline_s),
        QuotaStage(channels[context.STAGE]),
        channels,
    )


async def missing_stages(stages: Stages, patience: float) -> list[str]:
    """Connects to all stages, so that the first caller need not wait for it.

    Args:
        stages: To connect to.
        patience: Seconds to wait.

    Returns:
        Names of the stages that are not there.
    """
    waits = {
        name: asyncio.ensure_future(channel.channel_ready())
        for name, channel in stages.channels.items()
    }
    await asyncio.wait(waits.values(), timeout=patience)
    missing = [name for name, wait in waits.items() if not wait.done()]
    for wait in waits.values():
        wait.cancel()
    await asyncio.gather(*waits.values(), return_exceptions=True)
    return missing
