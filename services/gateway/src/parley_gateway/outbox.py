"""What waits to be sent to the client of a conversation.

Contract: `put` never waits, so an interruption is never stuck behind sound; who makes much waits
for `room` first. Numbers are given when a message leaves: what was dropped before leaves no gap.
Messages wait when the numbers that were allowed are used up.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable

from parley.conversation.v1 import conversation_pb2

from parley_gateway.wire import duration

Response = conversation_pb2.StreamingConverseResponse

_DEPTH = 16
_MOST = 1024


class Outbox:
    """The messages of one stream."""

    def __init__(
        self,
        write: Callable[[Response], Awaitable[None]],
        clock: Callable[[], float],
        last_sequence: int = 0,
        limit: int = sys.maxsize,
    ) -> None:
        """Begins empty.

        Args:
            write: Sends a message.
            clock: Seconds since the start of the stream.
            last_sequence: Number of the session's last message.
            limit: Last number that may be given.
        """
        self.last_sequence = last_sequence
        self._limit = limit
        self._used = asyncio.Event()
        self._write = write
        self._clock = clock
        self._waiting: deque[Response] = deque()
        self._held: set[str] = set()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._slack = asyncio.Event()
        self._slack.set()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, response: Response) -> None:
        """Adds a message; its sequence number and offset are filled in when it leaves."""
        self._waiting.append(response)
        self._news.set()
        self._empty.clear()
        if len(self._waiting) >= _DEPTH:
            self._room.clear()
        if len(self._waiting) >= _MOST:
            self._slack.clear()

    def allow(self, limit: int) -> None:
        """Lets numbers up to `limit` be given."""
        self._limit = limit
        self._news.set()

    async def running_low(self, left: int) -> None:
        """Waits until `left` numbers or fewer may still be given."""
        while self._limit - self.last_sequence > left:
            self._used.clear()
            await self._used.wait()

    def hold(self, response_id: str) -> None:
        """Keeps text and sound of a response back, and what of it comes behind them.

        Messages of other responses and of none pass them.
        """
        self._held.add(response_id)

    def release(self, response_id: str) -> None:
        """Keeps them back no longer."""
        self._held.discard(response_id)
        self._news.set()

    def drop(self, response_id: str) -> None:
        """Drops text and sound of a response that have not left yet."""
        self._held.discard(response_id)
        self._waiting = deque(
            each
            for each in self._waiting
            if each.response_id != response_id or not _is_output(each)
        )
        self._show_room()
        self._news.set()

    async def room(self) -> None:
        """Waits until the client has taken enough."""
        await self._room.wait()

    async def slack(self) -> None:
        """Waits while so much is left to be read that the client seems to read nothing."""
        await self._slack.wait()

    async def empty(self) -> None:
        """Waits until everything has left."""
        await self._empty.wait()

    async def run(self) -> None:
        """Sends, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while (response := self._next()) is not None:
                self._show_room()
                self.last_sequence += 1
                self._used.set()
                response.sequence = self.last_sequence
                response.session_offset.CopyFrom(duration(self._clock()))
                await self._write(response)
            if not self._waiting:
                self._empty.set()

    def _show_room(self) -> None:
        if len(self._waiting) < _DEPTH:
            self._room.set()
        if len(self._waiting) < _MOST:
            self._slack.set()

    def _next(self) -> Response | None:
        if self.last_sequence >= self._limit:
            return None
        kept: set[str] = set()
        for place, response in enumerate(self._waiting):
            response_id = response.response_id
            if response_id in self._held and _is_output(response):
                kept.add(response_id)
            elif response_id not in kept:
                del self._waiting[place]
                return response
        return None


def _is_output(response: Response) -> bool:
    return response.WhichOneof("event") in ("audio", "text_delta")
