"""What waits to be sent to the client of a conversation.

Contract: `put` never waits, so an interruption is never stuck behind sound; who makes much waits
for `room` first. Numbers are given when a message leaves: what was dropped before leaves no gap.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from parley.conversation.v1 import conversation_pb2

from parley_gateway.wire import duration

Response = conversation_pb2.StreamingConverseResponse

_DEPTH = 16


class Outbox:
    """The messages of one stream."""

    def __init__(
        self,
        write: Callable[[Response], Awaitable[None]],
        clock: Callable[[], float],
        last_sequence: int = 0,
    ) -> None:
        """Begins empty.

        Args:
            write: Sends a message.
            clock: Seconds since the start of the stream.
            last_sequence: Number of the session's last message.
        """
        self.last_sequence = last_sequence
        self._write = write
        self._clock = clock
        self._waiting: deque[Response] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, response: Response) -> None:
        """Adds a message; its sequence number and offset are filled in when it leaves."""
        self._waiting.append(response)
        self._news.set()
        self._empty.clear()
        if len(self._waiting) >= _DEPTH:
            self._room.clear()

    def drop(self, response_id: str) -> None:
        """Drops text and sound of a response that have not left yet."""
        kept = [
            each
            for each in self._waiting
            if each.response_id != response_id
            or each.WhichOneof("event") not in ("audio", "text_delta")
        ]
        self._waiting = deque(kept)
        if len(self._waiting) < _DEPTH:
            self._room.set()

    async def room(self) -> None:
        """Waits until the client has taken enough."""
        await self._room.wait()

    async def empty(self) -> None:
        """Waits until everything has left."""
        await self._empty.wait()

    async def run(self) -> None:
        """Sends, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                response = self._waiting.popleft()
                if len(self._waiting) < _DEPTH:
                    self._room.set()
                self.last_sequence += 1
                response.sequence = self.last_sequence
                response.session_offset.CopyFrom(duration(self._clock()))
                await self._write(response)
            self._empty.set()
