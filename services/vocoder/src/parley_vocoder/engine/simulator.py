"""An engine without models, for load tests: sound in the real windows and lengths, by the clock.

Contract: `Engine`. A stream is cut into the windows that the real engine would decode, each taking
`ttft` and what its frames cost at `speed` (seconds of decoded sound a second, context and
look-ahead counted). Streams do not slow each other down. The sound is a quiet tone whose pitch
follows from the seeds. Not for measuring the models.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from parley_core.errors import Unavailable
from parley_core.pacing import PaceSettings

from parley_vocoder.config import DecoderConfig
from parley_vocoder.contract import (
    AudioChunk,
    DecodeRequest,
    EngineStats,
    FlowModel,
    Usage,
    check_end,
    check_loaded,
    check_push,
)
from parley_vocoder.engine.torch_engine import EngineSettings
from parley_vocoder.windows import FrameClock, Window, WindowPlan

_LOUDNESS = 0.05
_LOWEST_HZ, _PITCHES = 110, 220


class SimulatorEngine:
    """`Engine` by the clock; an async context manager, as the real ones."""

    def __init__(
        self,
        config: DecoderConfig,
        models: Sequence[FlowModel],
        settings: EngineSettings,
        pace: PaceSettings,
    ) -> None:
        """No weights are read.

        Args:
            config: of a decoder folder: rates and sizes.
            models: what it takes requests for.
            settings: windows and limits.
            pace: how long work takes.
        """
        self.sample_rate = config.sample_rate
        self.clock = FrameClock.of(config)
        self.settings = settings
        self.pace = pace
        self._models = models
        self._streams: set[_Stream] = set()
        self._windows = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.stop()

    async def warm_up(self) -> None:
        """There is nothing to warm."""

    def open(self, request: DecodeRequest) -> "_Stream":
        """See `Engine`.

        Raises:
            FailedPrecondition: see `Engine`.
        """
        check_loaded(request.flow_model, self._models)
        stream = _Stream(self, request)
        self._streams.add(stream)
        return stream

    def stats(self) -> EngineStats:
        """See `Engine`; every window is a step of its own."""
        active = sum(stream.decoding for stream in self._streams)
        return EngineStats(len(self._streams), active, self._windows, self._windows)

    def decoded(self) -> None:
        """Takes note of a window."""
        self._windows += 1

    def closed(self, stream: "_Stream") -> None:
        """Takes note that a stream has ended."""
        self._streams.discard(stream)


class _Stream:
    """One open request; see `contract.DecodeStream`."""

    def __init__(self, engine: SimulatorEngine, request: DecodeRequest) -> None:
        settings = engine.settings
        self.usage = Usage()
        self.decoding = False
        self._engine = engine
        self._whole = request.whole
        self._limit = settings.max_whole_tokens if request.whole else settings.max_tokens
        self._plan = WindowPlan(settings.windows, engine.clock)
        self._random = Random((engine.pace.seed << 64) + request.seed)
        self._step = 2 * np.pi * (_LOWEST_HZ + self._random.randrange(_PITCHES))
        self._ended = False
        self._stopped = False
        self._news = asyncio.Event()

    async def push(self, ids: Sequence[int]) -> None:
        check_push(ids, ended=self._ended, taken=self.usage.tokens, limit=self._limit)
        self.usage.tokens += len(ids)
        self._news.set()

    def end(self) -> None:
        check_end(self.usage.tokens)
        self._ended = True
        self._news.set()

    def stop(self) -> None:
        """Fails whoever waits."""
        self._stopped = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        timing = self._engine.pace.pace().start(self._random)
        while True:
            if self._stopped:
                raise Unavailable(
                    "the vocoder is stopping", reason="ENGINE_STOPPED", retry_after=1.0
                )
            window = self._next()
            if window is None:
                self._news.clear()
                await self._news.wait()
                timing.resume()
                continue
            self.decoding = True
            begun = timing.left
            timing.first()
            timing.next(self._seconds(window.frames_to - window.frames_from))
            self.usage.compute_seconds += timing.left - begun
            await timing.wait()
            self.decoding = False
            self._engine.decoded()
            chunk = AudioChunk(self._sound(window), self.usage.samples, window.final)
            self.usage.samples += len(chunk.samples)
            yield chunk
            if window.final:
                return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.closed(self)

    def _next(self) -> Window | None:
        tokens = self.usage.tokens
        if not self._whole:
            return self._plan.next(tokens, self._ended)
        if not self._ended:
            return None
        frames = self._engine.clock.frames(tokens)
        return Window(0, tokens, 0, 0, frames, frames, final=True)

    def _seconds(self, frames: int) -> float:
        return frames * self._engine.clock.hop / self._engine.sample_rate

    def _sound(self, window: Window) -> NDArray[np.float32]:
        hop = self._engine.clock.hop
        at = np.arange(window.emit_from * hop, window.emit_to * hop)
        tone = np.sin(at * (self._step / self._engine.sample_rate))
        sound: NDArray[np.float32] = (_LOUDNESS * tone).astype(np.float32)
        return sound
