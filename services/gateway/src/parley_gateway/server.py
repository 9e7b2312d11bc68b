"""The gateway process: settings, wiring, serve."""

import asyncio
import gc
from contextlib import AsyncExitStack

from parley.conversation.v1 import conversation_pb2_grpc, speech_pb2_grpc
from parley_core.logging import get_logger
from parley_core.server import Server

from parley_gateway import conversation_service, speech_service
from parley_gateway.admission.admission import Admission
from parley_gateway.conversation_service import ConversationService
from parley_gateway.settings import GatewaySettings
from parley_gateway.speech_service import SpeechService
from parley_gateway.stages.bundle import Stages, missing_stages, open_stages
from parley_gateway.tools.toolbox import Toolbox, open_toolbox
from parley_gateway.web.http_server import HttpServer

_CONNECT_S = 2.0
# A conversation that has ended leaves its sound in cycles, some hundred objects: they go with the
# second generation, every few hundred conversations. Each pass stops all of them for a moment, so
# none is large, and the third is rare.
_COLLECT_AFTER = (20_000, 5, 20)
_log = get_logger("parley.gateway")


async def serve(settings: GatewaySettings) -> None:
    """Serves until a signal ends it. Stages that are down make calls fail, not the gateway."""
    async with AsyncExitStack() as closing:
        stages = await open_stages(settings.stages, closing)
        toolbox = await closing.enter_async_context(open_toolbox(settings.functions))
        server, conversations = build_server(settings, stages, toolbox)
        http = HttpServer(conversations, stages, settings) if settings.http.enabled else None
        if http:
            server.on_drain(http.drain)
            server.on_stop(http.stop)

        async def warm_up() -> None:
            await asyncio.to_thread(conversations.warm_up)
            missing = await missing_stages(stages, _CONNECT_S)
            if missing:
                _log.warning("stages_missing", stages=missing)
            missing = await toolbox.missing(_CONNECT_S)
            if missing:
                _log.warning("mcp_servers_missing", servers=missing)
            if http:
                await http.start()
            # What is there by now stays: the collector need not look through it in a conversation.
            gc.freeze()
            gc.set_threshold(*_COLLECT_AFTER)

        await server.run(warm_up=warm_up)


def build_server(
    settings: GatewaySettings, stages: Stages, toolbox: Toolbox | None = None
) -> tuple[Server, ConversationService]:
    """Wires the server up."""
    server = Server(settings, name="gateway")
    admission = Admission(settings.admission, stages.quota, stages.chat.load)
    conversations = ConversationService(stages, settings, admission, toolbox)
    server.add(
        speech_pb2_grpc.add_SpeechServiceServicer_to_server,
        SpeechService(stages, settings, admission),
        speech_service.FULL_NAME,
    )
    server.add(
        conversation_pb2_grpc.add_ConversationServiceServicer_to_server,
        conversations,
        conversation_service.FULL_NAME,
    )
    server.on_drain(conversations.drain)
    return server, conversations
