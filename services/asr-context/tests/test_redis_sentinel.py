"""A master that is killed behind Sentinel, or gives way: another takes over, the store finds it."""

import asyncio
import contextlib
import subprocess
import time

import numpy as np
import pytest
import redis
from context_fakes import Counting
from context_redis import eventually, free_port, redis_executable
from parley_asr_context.history import History
from parley_asr_context.keys import SessionName
from parley_asr_context.redis_client import open_client
from parley_asr_context.redis_store import Store
from parley_asr_context.sessions import Sessions
from parley_asr_context.settings import AsrContextSettings, RedisSettings, SentinelSettings
from parley_asr_context.token_counter import ByteCounter
from parley_asr_context.transcription_queue import TranscriptionQueue
from parley_asr_context.turns import Draft, Turns
from parley_asr_context.worker import TranscriptionWorker, WorkerConfig
from parley_core.errors import ParleyError, Unavailable
from parley_core.settings import SettingsError, build_settings
from redis.asyncio.sentinel import SentinelManagedSSLConnection

pytestmark = pytest.mark.contract

NAME = SessionName("tenant", "session")


class Watched:
    """A master, a replica and one Sentinel that needs a password."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.ports = {name: free_port() for name in ("master", "replica", "sentinel")}

    def start(self):
        for name in ("master", "replica"):
            self._run(name, "--requirepass secret", "--masterauth secret", "--appendonly yes")
        with self.client("replica") as replica:
            replica.replicaof("127.0.0.1", self.ports["master"])
            _until(lambda: replica.info("replication")["master_link_status"] == "up")
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor speech 127.0.0.1 {self.ports['master']} 1\n"
            "sentinel auth-pass speech secret\n"
            "sentinel down-after-milliseconds speech 300\n"
            "sentinel failover-timeout speech 2000\n"
            "requirepass watch\n"
        )
        self._run("sentinel", config=config)
        with self.client("sentinel") as sentinel:
            _until(lambda: sentinel.sentinel_master("speech")["num-slaves"] == 1)

    def client(self, name):
        password = "watch" if name == "sentinel" else "secret"
        return redis.Redis(port=self.ports[name], password=password)

    def _run(self, name, *options, config=None):
        folder = self.folder / name
        folder.mkdir()
        told = [word for option in options for word in option.split()]
        first = [str(config), "--sentinel"] if config else []
        self.processes[name] = subprocess.Popen(
            [redis_executable(), *first, "--port", str(self.ports[name]), "--bind", "127.0.0.1",
             "--dir", str(folder), "--save", "", *told],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with self.client(name) as client:
            _until(client.ping)

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    @property
    def settings(self):
        return RedisSettings(
            url="redis://:secret@nobody.invalid:1/0",
            retries=1,
            timeout_s=1,
            sentinel=SentinelSettings(
                addresses=("127.0.0.1:1", f"127.0.0.1:{self.ports['sentinel']}"),
                master="speech",
                password="watch",
            ),
        )


def _until(holds, timeout=20):
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(
            redis.ConnectionError, redis.BusyLoadingError, redis.ResponseError
        ):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path)
    try:
        made.start()
        yield made
    finally:
        for name in list(made.processes):
            made.kill(name)


async def test_a_session_outlives_the_master_and_callers_are_told_meanwhile(watched):
    store = Store.connect(watched.settings)
    sessions = Sessions(store)
    await sessions.create(NAME, ttl=60)
    # A turn that was acknowledged may still be on its way to the replica.
    with watched.client("master") as master:
        master.wait(1, 5000)
    watched.kill("master")
    with pytest.raises(Unavailable) as down:
        await sessions.get(NAME)
    assert down.value.reason == "REDIS_UNAVAILABLE"

    async def back():
        with contextlib.suppress(Unavailable):
            return await sessions.get(NAME)

    assert await eventually(back, timeout=30)
    await sessions.delete(NAME)
    with pytest.raises(ParleyError):
        await sessions.get(NAME)
    assert await store.check(), "the new master has its append-only file too"
    await store.aclose()


@contextlib.asynccontextmanager
async def one_address(port):
    """One address for whatever server `port()` names when a connection is made."""
    connections = set()

    async def copy(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def connect(reader, writer):
        connections.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", port())
            await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for each in connections:
        each.cancel()
    await asyncio.gather(*connections)


async def test_a_master_that_became_a_replica_behind_its_address_is_left(watched):
    """Its connections stay open: who goes on with them finds a replica for ever."""
    watched.kill("sentinel")
    ports = watched.ports
    now = "master"
    async with one_address(lambda: ports[now]) as port:
        url = f"redis://:secret@127.0.0.1:{port}/0"
        store = Store.connect(RedisSettings(url=url, retries=1, timeout_s=2))
        turns, queue = Turns(store, max_turns=9, audio_ttl=60), TranscriptionQueue(store)
        history = History(turns, queue, ByteCounter(), requeue_after=60)
        sessions = Sessions(store)
        await sessions.create(NAME, ttl=60)
        await asyncio.gather(*(sessions.get(NAME) for _ in range(5)))  # as many connections
        worker = TranscriptionWorker("w", queue, turns, Counting(), WorkerConfig(backoff=0.1))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run())
            with watched.client("master") as master, watched.client("replica") as replica:
                master.wait(1, 5000)
                replica.replicaof("NO", "ONE")
                now = "replica"
                master.replicaof("127.0.0.1", ports["replica"])
            for number in range(5):
                await history.append(NAME, Draft(f"t{number}", pcm=np.arange(100, dtype=np.int16)))
            last = await history.append(
                NAME, Draft("last", pcm=np.arange(9, dtype=np.int16)), wait=9
            )
            assert last.user_text == "9 samples"
            task.cancel()
        await store.aclose()


async def test_a_master_nobody_watches_is_unavailable_not_a_crash(watched):
    settings = watched.settings
    other = settings.sentinel.model_copy(update={"master": "other"})
    store = Store.connect(settings.model_copy(update={"sentinel": other}))
    with pytest.raises(Unavailable):
        await store.check()
    await store.aclose()


async def test_tls_of_the_url_holds_for_the_master_and_for_sentinels_if_wanted():
    def pool(tls):
        sentinel = SentinelSettings(addresses=("[::1]:26379",), tls=tls)
        return open_client(
            RedisSettings(url="rediss://u:p@h:1/3?ssl_ca_certs=/ca.crt", sentinel=sentinel)
        ).connection_pool

    found = pool(tls=True)
    assert found.connection_class is SentinelManagedSSLConnection
    kwargs = found.connection_kwargs
    assert (kwargs["username"], kwargs["db"], kwargs["ssl_ca_certs"]) == ("u", 3, "/ca.crt")
    (watcher,) = found.sentinel_manager.sentinels
    asked = watcher.connection_pool.connection_kwargs
    assert (asked["host"], asked["port"], asked["ssl_ca_certs"]) == ("::1", 26379, "/ca.crt")
    (watcher,) = pool(tls=False).sentinel_manager.sentinels
    assert "ssl_ca_certs" not in watcher.connection_pool.connection_kwargs


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("redis.sentinel={addresses: [], master: a}", "redis.sentinel.addresses"),
        ("redis.sentinel={addresses: [host]}", "redis.sentinel.addresses.0"),
        ("redis={cluster: true, sentinel: {addresses: ['a:1']}}", "one of cluster and sentinel"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(setting, told):
    with pytest.raises(SettingsError, match=told):
        build_settings(AsrContextSettings, overrides=["weights=/w", setting])
