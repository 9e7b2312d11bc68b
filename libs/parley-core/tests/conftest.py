"""A scripted tokenizer service: the servicer that the server tests put behind the real edge."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc

# For `demo_process`: pytest imports test files by path, and leaves their folder out.
sys.path.insert(0, str(Path(__file__).parent))


class ScriptedTokenizer(rpc.TokenizerServiceServicer):
    """Answers what `on_tokenize` says; its stream echoes flush ids until released."""

    def __init__(self):
        self.on_tokenize: Callable[[pb.TokenizeRequest, Any], Any] = self._echo
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = asyncio.Event()

    async def _echo(self, request, context):
        return pb.TokenizeResponse(linguistic_codes=[len(request.content)])

    async def Tokenize(self, request, context):
        return await self.on_tokenize(request, context)

    async def StreamingTokenize(self, request_iterator, context) -> AsyncIterator[Any]:
        self.started.set()
        try:
            async for request in request_iterator:
                yield pb.StreamingTokenizeResponse(
                    flushed=pb.Flushed(flush_id=request.flush.flush_id)
                )
            await self.release.wait()
        finally:
            self.ended.set()


@pytest.fixture
async def servicer():
    return ScriptedTokenizer()


@pytest.fixture
def make_servicer():
    return ScriptedTokenizer


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("PARLEY_"):
            monkeypatch.delenv(name)
