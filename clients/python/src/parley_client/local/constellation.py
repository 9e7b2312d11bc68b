"""Starting, watching and ending the constellation of a state folder.

Contract: `start` either leaves a supervisor with all services behind, or nothing; `stop` ends
    everything that the
state names and checks that it is gone. Both may be called at any time, also after a crash or a
reboot.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_client.local.errors import LocalError
from parley_client.local.logs import last_readable_line, tail
from parley_client.local.plan import Plan
from parley_client.local.services import REDIS
from parley_client.local.state import Process, ServiceState, State, StateFolder

_HEALTH_TIMEOUT_S = 2.0
_SUPERVISOR_START_S = 15.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1


@dataclass(frozen=True)
class ServiceHealth:
    """One service as it is right now.

    Attributes:
        state: what the supervisor knows.
        health: ``serving``, ``starting`` (runs, does not serve yet), ``restarting``, ``failed`` or
            ``down``.
    """

    state: ServiceState
    health: str

    @property
    def serving(self) -> bool:
        """It answers."""
        return self.health == "serving"


def start(folder: StateFolder, plan: Plan) -> None:
    """Starts the supervisor and waits until its state is there.

    Raises:
        LocalError: ALREADY_UP, or SUPERVISOR_FAILED.
    """
    if folder.supervised():
        raise LocalError(f"something already runs in {folder.root}", reason="ALREADY_UP")
    plan.write(folder.plan_file)
    for each in plan.services:
        # A log of its own for each run: why it failed last time is not why it fails now.
        with contextlib.suppress(FileNotFoundError):
            Path(each.log).rename(each.log + ".1")
    log = folder.logs / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "parley_client.local.supervisor", str(folder.root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _SUPERVISOR_START_S
    while time.monotonic() < deadline:
        state = folder.read()
        if state is not None and state.supervisor.pid == process.pid:
            return
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    raise LocalError(
        f"the supervisor did not start: {last_readable_line(log) or 'no word of it'} (log: {log})",
        reason="SUPERVISOR_FAILED",
    )


def stop(folder: StateFolder) -> int:
    """Ends what runs in a state folder.

    Returns:
        How many processes were ended; 0 when nothing ran.

    Raises:
        LocalError: STOP_FAILED, naming the pids that would not end.
    """
    state = folder.read()
    if state is None:
        if folder.supervised():
            raise LocalError(
                f"a supervisor runs in {folder.root} but its state cannot be read; "
                "end it by hand: pgrep -f parley_client.local.supervisor",
                reason="STATE_UNREADABLE",
            )
        folder.clear()
        return 0
    ours = list(_living(state))
    if state.supervisor.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.supervisor.pid, signal.SIGTERM)
        _wait_gone([state.supervisor], _STOP_TIMEOUT_S)
    # A supervisor that was killed left its services behind.
    latest = folder.read() or state
    left = [each for each in {*ours, *_living(latest)} if each.alive()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                # Each leads a group of its own; what it started ends with it.
                os.killpg(process.pid, number)
        left = _wait_gone(left, 5.0)
    if left:
        pids = ", ".join(str(each.pid) for each in left)
        raise LocalError(f"these processes would not end: {pids}", reason="STOP_FAILED")
    if folder.supervised():
        raise LocalError(
            f"a supervisor runs in {folder.root} that is not the one in its state (was the clock "
            "set?); end it by hand: pgrep -f parley_client.local.supervisor",
            reason="STOP_FAILED",
        )
    folder.clear()
    return len(ours)


def _living(state: State) -> Iterator[Process]:
    for process in (state.supervisor, *(each.process for each in state.services.values())):
        if process is not None and process.alive():
            yield process


def _wait_gone(processes: list[Process], timeout: float) -> list[Process]:
    """Waits for processes to end; those that did not."""
    deadline = time.monotonic() + timeout
    left = [each for each in processes if each.alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        for each in left:
            # Our own children would stay zombies for as long as we live.
            with contextlib.suppress(psutil.Error, ChildProcessError):
                os.waitpid(each.pid, os.WNOHANG)
        left = [each for each in left if each.alive()]
    return left


async def observe(state: State) -> dict[str, ServiceHealth]:
    """Asks every service how it is."""
    healths = await asyncio.gather(*(_health(each) for each in state.services.values()))
    return {
        each.name: ServiceHealth(each, health)
        for each, health in zip(state.services.values(), healths, strict=True)
    }


async def watch_start(
    folder: StateFolder, timeout: float
) -> AsyncIterator[dict[str, ServiceHealth]]:
    """Yields the health of all services until all serve.

    Raises:
        LocalError: SERVICE_FAILED with the cause when one ends before it served; START_TIMEOUT.
    """
    deadline = time.monotonic() + timeout
    served: set[str] = set()
    while True:
        state = folder.read()
        if state is None or not state.supervisor.alive():
            cause = last_readable_line(folder.logs / "supervisor.log")
            raise LocalError(f"the supervisor ended: {cause}", reason="SUPERVISOR_FAILED")
        healths = await observe(state)
        yield healths
        served |= {name for name, each in healths.items() if each.serving}
        for name, each in healths.items():
            ended = each.state.restarts or each.health in ("failed", "restarting")
            if name not in served and ended:
                raise LocalError(explain_failure(each.state), reason="SERVICE_FAILED")
        if all(each.serving for each in healths.values()):
            return
        if time.monotonic() > deadline:
            late = [name for name, each in healths.items() if not each.serving]
            raise LocalError(
                f"not serving after {timeout:.0f} s: {', '.join(late)}; "
                f"see `parley logs {late[0]}`, or wait longer with --timeout",
                reason="START_TIMEOUT",
            )
        await asyncio.sleep(_POLL_S)


def explain_failure(state: ServiceState) -> str:
    """Why a service ended, in one line."""
    cause = state.cause or last_readable_line(Path(state.log))
    if not cause and state.last_exit is not None and state.last_exit < 0:
        cause = f"ended by {signal.Signals(-state.last_exit).name}"
    return f"{state.name} did not start: {cause or 'it said nothing'} (log: {state.log})"


async def _health(state: ServiceState) -> str:
    if state.status in ("failed", "restarting"):
        return state.status
    if state.status in ("waiting", "stopped"):
        return "starting" if state.status == "waiting" else "down"
    if state.process is None or not state.process.alive():
        return "restarting"
    if state.name == REDIS:
        return "serving" if await _redis_answers(state.address) else "starting"
    return "serving" if await _serves(state.address) else "starting"


async def _serves(address: str) -> bool:
    # A pool shared with an earlier channel would remember its back-off and look dead for too long.
    # Nor may a proxy of the environment be asked for what is on this machine.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _redis_answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"PING\r\n")
                # -LOADING and the like are not an answer yet.
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def log_lines(state: State, name: str, lines: int) -> list[str]:
    """The last lines of one service's log."""
    return tail(Path(state.services[name].log), lines)
