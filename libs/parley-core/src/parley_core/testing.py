"""A live server inside a test, with everything that production puts around a servicer.

Not for processes: the e2e suite starts those.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from parley_core.clients import connect
from parley_core.errors import ParleyError, from_rpc_error
from parley_core.server import Server
from parley_core.settings import ServiceSettings


@asynccontextmanager
async def running_server(
    register: Callable[[Any, grpc.aio.Server], None],
    servicer: Any,
    full_name: str,
    *,
    settings: ServiceSettings | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serves one servicer on a free loopback port and yields a channel to it.

    Args:
        register: generated ``add_..._to_server``.
        servicer: its implementation.
        full_name: full name of the service.
        settings: settings of the server; the defaults when left out.
    """
    server = Server(settings or ServiceSettings(), name="test")
    server.add(register, servicer, full_name)
    async with serving(server) as channel:
        yield channel


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    """Runs a server that the test built and yields a plaintext channel to it."""
    await server.start()
    try:
        await server.set_serving()
        async with connect(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop()


class RaisedError:
    """What `rpc_fails` caught; ``error`` is set once its block ended."""

    error: ParleyError


@asynccontextmanager
async def rpc_fails(reason: str) -> AsyncIterator[RaisedError]:
    """Expects the block to fail with an RPC error of this reason, and hands its typed form out."""
    raised = RaisedError()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield raised
    raised.error = from_rpc_error(caught.value)
    assert raised.error.reason == reason, str(raised.error)


async def exchange(call: Any, requests: Iterable[Any]) -> list[Any]:
    """Sends all requests of a bidirectional call and reads all responses.

    It does what a request iterator does, but for a defect of grpcio: there a request that comes
    after the server has ended the call replaces the status that the server sent by an INTERNAL.

    Args:
        call: made without a request iterator.
        requests: what to send.

    Raises:
        grpc.aio.AioRpcError: as the server ended the call.
    """

    async def send() -> None:
        with suppress(grpc.aio.AioRpcError, cygrpc.InternalError):
            await call.wait_for_connection()
            for request in requests:
                await call._cython_call.send_serialized_message(request.SerializeToString())
            await call.done_writing()

    sending = asyncio.ensure_future(send())
    try:
        return [response async for response in call]
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
