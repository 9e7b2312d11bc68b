"""The five stages together, as the gateway holds them."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from parley_core.clients import connect

from parley_gateway.settings import StagesSettings
from parley_gateway.stages.chat import ChatStage
from parley_gateway.stages.context import ContextStage
from parley_gateway.stages.tokenizer import TokenizerStage
from parley_gateway.stages.tts import TtsStage
from parley_gateway.stages.vocoder import VocoderStage


@dataclass(frozen=True, slots=True)
class Stages:
    """Clients of all stages."""

    tokenizer: TokenizerStage
    chat: ChatStage
    tts: TtsStage
    vocoder: VocoderStage
    context: ContextStage


async def open_stages(settings: StagesSettings, closing: AsyncExitStack) -> Stages:
    """Opens a channel to each stage; `closing` closes them. No stage needs to be up yet."""
    tokenizer, chat, tts, vocoder, context = [
        await closing.enter_async_context(connect(each))
        for each in (
            settings.tokenizer,
            settings.chat,
            settings.tts,
            settings.vocoder,
            settings.context,
        )
    ]
    return Stages(
        TokenizerStage(tokenizer, settings.tokenizer.deadline_s),
        ChatStage(chat, settings.chat.deadline_s),
        TtsStage(tts, settings.tts.deadline_s),
        VocoderStage(vocoder, settings.vocoder.deadline_s),
        ContextStage(context, settings.context.deadline_s),
    )
