"""What a bench runs against: Redis and the gateway as processes, the stages in this one."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley_client.local.preflight import redis_binary

from parley_evals.bench_turns.stages import Probe, running_stages

_START_S = 60.0


@dataclass(frozen=True, slots=True)
class World:
    """A constellation.

    Attributes:
        address: Of the gateway.
        gateway: Its process.
        probe: At the stages.
    """

    address: str
    gateway: psutil.Process
    probe: Probe


@asynccontextmanager
async def running_world(
    weights: Path, profile: str, **over: Mapping[str, Any]
) -> AsyncIterator[World]:
    """Starts everything and ends it again; arguments as of `running_stages`."""
    async with AsyncExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="parley-turns-")))
        redis_port, port = _free_port(), _free_port()
        await closing.enter_async_context(
            _process(
                *(redis_binary(), "--bind", "127.0.0.1", "--port", str(redis_port)),
                *("--dir", str(folder), "--appendonly", "yes", "--save", ""),
            )
        )
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        stages = await closing.enter_async_context(
            running_stages(weights, redis_url, folder, profile, **over)
        )
        env = {
            "PARLEY_GATEWAY_PORT": str(port),
            "PARLEY_GATEWAY_HOST": "127.0.0.1",
            "PARLEY_GATEWAY_LOG__LEVEL": "warning",
            "PARLEY_GATEWAY_HTTP__ENABLED": "false",
            # As `parley up` has it: threads of BLAS wait for each other on full cores.
            "OMP_NUM_THREADS": "1",
        } | {
            f"PARLEY_GATEWAY_STAGES__{name.upper()}__ADDRESS": address
            for name, address in stages.addresses.items()
        }
        process = await closing.enter_async_context(
            _process(sys.executable, "-m", "parley_gateway", env=env)
        )
        address = f"127.0.0.1:{port}"
        await _serving(address)
        yield World(address, psutil.Process(process.pid), stages.probe)


@asynccontextmanager
async def _process(
    *command: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | (env or {}),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=None if env else asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _serving(address: str) -> None:
    async with asyncio.timeout(_START_S), grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        status = health_pb2.HealthCheckResponse.UNKNOWN
        while status != health_pb2.HealthCheckResponse.SERVING:
            await asyncio.sleep(0.1)
            with suppress(grpc.aio.AioRpcError):
                status = (await stub.Check(request)).status


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])
