import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from parley_asr_context.keys import SessionName
from parley_asr_context.redis_store import Store
from redis_fixture import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["client", "cluster_client"])
async def store(request, redis_server):
    store = Store.connect(redis_server.url, cluster=request.param == "cluster_client", retries=1)
    await store.client.flushall()
    yield store
    await store.aclose()


@pytest.fixture
def name():
    return SessionName(f"tenant-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex)


@pytest.fixture
def pcm():
    return np.arange(1600, dtype=np.int16)
