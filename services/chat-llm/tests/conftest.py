import os
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from parley.chat.v1 import chat_pb2_grpc
from parley_chat_llm.server import open_service
from parley_chat_llm.service import FULL_NAME, ChatService
from parley_chat_llm.settings import ChatLlmSettings
from parley_core.testing import running_server
from step1.seeded import write_seeded_chat

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    write_seeded_chat(folder)
    return folder


@pytest.fixture
def served(weights):
    """Opens a live server: `async with served(**settings) as live: live.stub, live.engine`."""

    @asynccontextmanager
    async def serve(*, system_prompt="", engine_wrapper=None, **settings):
        chosen = ChatLlmSettings(weights=weights, **settings)
        service = ChatService()
        async with AsyncExitStack() as closing:
            engine = await open_service(service, chosen, closing, system_prompt=system_prompt)
            async with running_server(
                chat_pb2_grpc.add_ChatServiceServicer_to_server, service, FULL_NAME
            ) as channel:
                stub = chat_pb2_grpc.ChatServiceStub(channel)
                yield SimpleNamespace(stub=stub, engine=engine, service=service)

    return serve
