"""The chat-llm process: settings, wiring, serve."""

import asyncio
from contextlib import AsyncExitStack

from parley.chat.v1 import chat_pb2_grpc
from parley_core import telemetry
from parley_core.server import Server
from parley_core.settings import SettingsError
from step1.chat_prompt import ChatTemplate
from step1.config import Step1Config
from step1.engine.choice import load_engine
from step1.engine.contract import Engine
from step1.text_tokenizer import TextTokenizer

from parley_chat_llm.chat_model import ChatModel
from parley_chat_llm.service import FULL_NAME, ChatService
from parley_chat_llm.settings import ChatLlmSettings


async def serve(settings: ChatLlmSettings) -> None:
    """Serves until a signal ends it; health is SERVING once the weights are loaded and have run."""
    system_prompt = read_system_prompt(settings)
    server = Server(settings, name="chat-llm")
    service = ChatService()
    server.add(chat_pb2_grpc.add_ChatServiceServicer_to_server, service, FULL_NAME)
    async with AsyncExitStack() as closing:

        async def warm_up() -> None:
            engine = await open_service(service, settings, closing, system_prompt=system_prompt)
            server.needs("the engine", engine.died)

        await server.run(warm_up=warm_up)


async def open_service(
    service: ChatService,
    settings: ChatLlmSettings,
    closing: AsyncExitStack,
    *,
    system_prompt: str = "",
) -> Engine:
    """Loads the checkpoint, starts the engine and opens the service.

    Args:
        service: What to open.
        settings: Where everything is.
        closing: Stops the engine.
        system_prompt: For chats that bring none.

    Raises:
        ValueError: The checkpoint is incomplete or not understood.
    """
    config = await asyncio.to_thread(Step1Config.load, settings.weights)
    tokenizer = await asyncio.to_thread(
        TextTokenizer.load, settings.weights, audio_offset=config.audio_token_offset
    )
    sampling = await asyncio.to_thread(settings.sampling.defaults, settings.weights)
    engine = await load_engine(settings, config)
    closing.push_async_callback(engine.close)
    await engine.start()
    service.open(
        ChatModel(
            engine,
            config,
            tokenizer,
            ChatTemplate(tokenizer, settings.bos),
            sampling=sampling,
            limits=settings.prompt_limits.limits(),
            system_prompt=system_prompt,
        )
    )
    telemetry.ENGINE_RUNNING.labels("chat-llm").set_function(lambda: engine.stats().running)
    telemetry.ENGINE_QUEUED.labels("chat-llm").set_function(lambda: engine.stats().waiting)
    return engine


def read_system_prompt(settings: ChatLlmSettings) -> str:
    """The configured system prompt; empty when none is.

    Raises:
        SettingsError: The file cannot be read.
    """
    path = settings.system_prompt_file
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"system_prompt_file: {path} cannot be read: {error}") from None
