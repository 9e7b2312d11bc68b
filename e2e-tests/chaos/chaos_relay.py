"""A TCP relay that can break: by a reset, or by silence, as a network does.

Contract: `reset` ends every connection by RST, `hush` carries nothing more and closes nothing.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LINGER_ZERO = struct.pack("ii", 1, 0)


class Relay:
    """Between clients and one address."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._open: list[asyncio.StreamWriter] = []
        self._hushed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""

    def hush(self) -> None:
        """The cable is cut."""
        self._hushed.set()

    def reset(self) -> None:
        """Ends all connections without a word of HTTP/2."""
        for writer in self._open:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort()
        self._open.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._open += [writer, far_writer]
        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                for source, sink in ((reader, far_writer), (far_reader, writer)):
                    group.create_task(self._carry(source, sink))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self._hushed.is_set():
                await asyncio.Event().wait()
            sink.write(data)
            await sink.drain()
        if not self._hushed.is_set():
            sink.close()


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """A relay in front of an address."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        relay.reset()
        server.close()
