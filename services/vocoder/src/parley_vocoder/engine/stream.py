"""One open request, seen from both sides: the event loop that feeds it and the engine's thread.

The caller's side (`push`, `end`, iteration) runs on the event loop, the engine's side (`take`,
`deliver`, `fail`) on its worker thread; `_lock` guards what both touch.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from parley_core.errors import ParleyError

from parley_vocoder.contract import (
    AudioChunk,
    DecodeRequest,
    Usage,
    check_end,
    check_push,
)

# A unary request waits for its whole sound anyway; it yields this long to streams.
_PATIENCE = 1.0


class TorchStream:
    """A request inside `TorchEngine`; see `contract.DecodeStream`."""

    def __init__(
        self,
        request: DecodeRequest,
        sample_rate: int,
        *,
        max_tokens: int,
        max_ahead: int,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_close: Callable[["TorchStream"], None],
    ) -> None:
        self.request = request
        self.usage = Usage()
        self._sample_rate = sample_rate
        self._max_tokens = max_tokens
        self._max_ahead = max_ahead
        self._clock = clock
        self._wake = wake
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[AudioChunk | ParleyError] = asyncio.Queue()
        self._lock = threading.Lock()
        self._inbox: list[int] = []
        self._ended = False
        self._undelivered = 0
        self._closed = False
        self._opened = clock()
        self._first_sound: float | None = None
        self._last_sound: float | None = None
        self._delivered = 0

    @property
    def closed(self) -> bool:
        """Whether the caller has left."""
        return self._closed

    async def push(self, ids: Sequence[int]) -> None:
        """See `DecodeStream`."""
        check_push(ids, ended=self._ended, taken=self.usage.tokens, limit=self._max_tokens)
        with self._lock:
            self._inbox.extend(ids)
        self.usage.tokens += len(ids)
        self._wake()

    def end(self) -> None:
        """See `DecodeStream`."""
        check_end(self.usage.tokens)
        with self._lock:
            self._ended = True
        self._wake()

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        """See `DecodeStream`."""
        while True:
            item = await self._chunks.get()
            if isinstance(item, ParleyError):
                raise item
            with self._lock:
                self._undelivered -= 1
            self._wake()
            self.usage.samples += len(item.samples)
            yield item
            if item.final:
                return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._on_close(self)

    def take(self) -> tuple[list[int], bool]:
        """Worker: new tokens, and whether they were the last."""
        with self._lock:
            ids, self._inbox = self._inbox, []
            return ids, self._ended

    @property
    def may_run_ahead(self) -> bool:
        """Worker: whether the caller keeps up with what is delivered."""
        return self._undelivered < self._max_ahead

    @property
    def last_sound(self) -> float | None:
        """Worker: when the listener was last given sound, on the engine's clock; None if never."""
        return self._last_sound

    @property
    def deadline(self) -> float:
        """Worker: when the listener runs dry, on the engine's clock, playing since first sound."""
        if self.request.whole:
            return self._opened + _PATIENCE
        if self._first_sound is None:
            return self._opened
        return self._first_sound + self._delivered / self._sample_rate

    def deliver(self, chunk: AudioChunk) -> None:
        """Worker: hand a chunk to the caller."""
        self._last_sound = self._clock()
        if self._first_sound is None:
            self._first_sound = self._last_sound
        self._delivered += len(chunk.samples)
        with self._lock:
            self._undelivered += 1
        self._post(self._chunks.put_nowait, chunk)

    def fail(self, error: ParleyError) -> None:
        """Worker: end the request with an error."""
        self._post(self._chunks.put_nowait, error)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        if not self._closed:
            self._loop.call_soon_threadsafe(call, *arguments)
