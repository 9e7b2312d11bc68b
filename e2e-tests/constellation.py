"""The real constellation, driven through the `parley` command alone."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from parley_client import Client
from parley_client.local.weights import describe

DATA = Path(__file__).parent / "data"
QUESTION = DATA / "question.wav"

RUNNING_GAUGES = ("parley_requests_running", "parley_engine_requests_running")

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Result:
    """How a run of the command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Constellation:
    """A state folder and what runs there, or a gateway somewhere else.

    Attributes:
        state: folder.
        env: added to the environment of commands.
        at: address of a gateway that was not started here.
        api_key: sent with every call.
        seeded: its weights are random numbers.
    """

    state: Path
    env: dict[str, str]
    at: str | None = None
    api_key: str | None = None
    seeded: bool = True

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "parley_client", *(str(each) for each in arguments)]

    def parley(self, *arguments: object, timeout: float = 300) -> Result:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def popen(self, *arguments: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def environment(self) -> dict[str, str]:
        env = {**os.environ, **self.env, "PARLEY_STATE": str(self.state)}
        if self.at:
            env["PARLEY_ADDRESS"] = self.at
        if self.api_key:
            env["PARLEY_API_KEY"] = self.api_key
        return env

    def client(self) -> Client:
        """The SDK, connected."""
        return Client(self.address, api_key=self.api_key)

    def status(self) -> dict[str, Any]:
        return self.parley("status", "--json").json

    @property
    def address(self) -> str:
        return self.at or str(self.status_file()["address"])

    def pids(self) -> dict[str, int]:
        return {name: each["pid"] for name, each in self.status()["services"].items()}

    def running(self) -> dict[str, float]:
        """Requests running right now, by service: the sum of its gauges."""
        return {
            name: sum(metric(each["metrics_address"], gauge) for gauge in RUNNING_GAUGES)
            for name, each in self.status_file()["services"].items()
            if each["metrics_address"]
        }

    def status_file(self) -> dict[str, Any]:
        """The supervisor's own view, without the time that a command takes to start."""
        return json.loads((self.state / "state.json").read_text())


def metric(address: str, name: str) -> float:
    """Sum over all labels of one Prometheus metric."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        text = response.read().decode()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    )


def until(condition: Callable[[], ValueT], timeout: float, what: str) -> ValueT:
    """Polls for something that other processes do."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


async def eventually(
    condition: Callable[[], Awaitable[ValueT | None]], timeout: float, what: str
) -> ValueT:
    """Polls, without blocking, for something that other processes do."""
    try:
        async with asyncio.timeout(timeout):
            while not (value := await condition()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            return value
    except TimeoutError:
        raise AssertionError(f"not within {timeout} s: {what}") from None


@contextmanager
def running(state: Path, weights: object = None) -> Iterator[Constellation]:
    """Parley as processes on this machine; `weights` as `parley up` takes them."""
    made = Constellation(state, {})
    up = made.parley("up", *(["--weights", weights] if weights else []))
    assert up.status == 0, up.err
    yield replace(made, seeded=describe(Path(made.status_file()["weights"])).stub)
    down = made.parley("down")
    assert down.status == 0, down.err
