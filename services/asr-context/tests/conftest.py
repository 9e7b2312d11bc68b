import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from context_redis import RedisServer
from context_rig import context_server, settings
from paraformer.asr import Recognizer, find_checkpoint
from paraformer.checkpoint import PUBLISHED_FOLDER
from paraformer.seeded import write_seeded
from parley.context.v1 import context_pb2 as pb
from parley.context.v1 import context_pb2_grpc
from parley_asr_context.keys import SessionName
from parley_asr_context.redis_store import Store
from parley_asr_context.settings import RedisSettings


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["client", "cluster_client"])
async def store(request, redis_server):
    store = Store.connect(
        RedisSettings(url=redis_server.url, cluster=request.param == "cluster_client", retries=1)
    )
    await store.client.flushall()
    yield store
    await store.aclose()


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A Step-Audio-Tokenizer folder as far as this service reads it."""
    folder = tmp_path_factory.mktemp("weights")
    write_seeded(folder / PUBLISHED_FOLDER)
    return folder


@pytest.fixture
def name():
    return SessionName(f"tenant.{uuid.uuid4().hex[:8]}", uuid.uuid4().hex)


@pytest.fixture
def pcm():
    return np.arange(1600, dtype=np.int16)


@pytest.fixture(scope="session")
def recognizer(weights):
    return Recognizer.load(find_checkpoint(weights))


@pytest.fixture
async def channel(redis_server, weights, recognizer):
    async with context_server(settings(redis_server.url, weights), recognizer) as (_, channel):
        yield channel


@pytest.fixture
def stub(channel):
    return context_pb2_grpc.ContextServiceStub(channel)


@pytest.fixture
async def session(stub):
    return (await stub.CreateSession(pb.CreateSessionRequest(tenant="acme"))).name
