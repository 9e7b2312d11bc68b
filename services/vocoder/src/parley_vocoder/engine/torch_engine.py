"""The in-process engine: one thread, Euler steps of all streams batched continuously.

Each stream has at most one window between noise and mel. Every tick takes one Euler step for the
chosen windows, in batches of similar length (padded rows come out as alone, see `flow.masked`), so
a newcomer joins at the next step and a cancelled stream is gone at the next step. Windows that
finish are vocoded, those of equal size together.

Not for: gRPC, admission by tenant, more than one device.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import torch
from parley_core.errors import Internal, ParleyError, Unavailable
from parley_core.tokens import GROUP_SIZE

from parley_vocoder.contract import (
    SPEAKER_WIDTH,
    DecodeRequest,
    EngineStats,
    FlowModel,
    VoiceConditioning,
    check_loaded,
)
from parley_vocoder.decoder import Decode, Decoder, Excitation
from parley_vocoder.engine.batch import by_length, choose
from parley_vocoder.engine.flow.solver import Trajectory, euler_step
from parley_vocoder.engine.stream import TorchStream
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import WholeDecode
from parley_vocoder.streaming import WindowedDecode
from parley_vocoder.windows import WindowSettings

_log = logging.getLogger(__name__)

_A = TypeVar("_A")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs.

    Attributes:
        windows: how streams are cut.
        max_frames: mel frames, all windows together, in one Euler step at most. Where a step takes
            as long as it has frames (CPU) keep it small; on a GPU let it hold all streams.
        reserve: a stream is urgent from this long before its listener runs dry, seconds.
        max_tokens: longest streamed request (10 minutes).
        max_whole_tokens: longest request decoded whole (60 s; its cost grows faster than length).
        max_ahead: chunks the caller may leave unread before its stream rests.
    """

    windows: WindowSettings = field(default_factory=WindowSettings)
    max_frames: int = 1_024
    reserve: float = 0.3
    max_tokens: int = 25_000
    max_whole_tokens: int = 2_500
    max_ahead: int = 16


@dataclass(slots=True, eq=False)
class _Work:
    """A stream as the worker sees it."""

    stream: TorchStream
    decoder: Decoder
    decode: Decode | None = None
    trajectory: Trajectory | None = None


class TorchEngine:
    """See `contract.Engine`. Use as `async with engine:`; the thread lives inside the block.

    Args:
        load: reads the weights; called once, off the event loop, by `warm_up`.
        settings: how to run.
        clock: seconds that listeners play by.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[FlowModel, Decoder]],
        settings: EngineSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._clock = clock
        self._settings = settings or EngineSettings()
        self._decoders: Mapping[FlowModel, Decoder] = {}
        self.sample_rate = 0
        self._changed = threading.Condition()
        self._dirty = False
        self._stopping = False
        self._works: dict[TorchStream, _Work] = {}
        self._steps = 0
        self._rows = 0
        self._thread = threading.Thread(target=self._run, name="vocoder-engine", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        for work in self._works.values():
            work.stream.fail(
                Unavailable("the vocoder is stopping", reason="ENGINE_STOPPED", retry_after=1.0)
            )
        self._works.clear()

    def open(self, request: DecodeRequest) -> TorchStream:
        """See `Engine`.

        Raises:
            FailedPrecondition: see `Engine`.
        """
        check_loaded(request.flow_model, self._decoders)
        settings = self._settings
        stream = TorchStream(
            request,
            self.sample_rate,
            max_tokens=settings.max_whole_tokens if request.whole else settings.max_tokens,
            max_ahead=settings.max_ahead,
            clock=self._clock,
            wake=self._wake,
            on_close=self._close,
        )
        with self._changed:
            self._works[stream] = _Work(stream, self._decoders[request.flow_model])
        return stream

    def stats(self) -> EngineStats:
        """See `Engine`."""
        with self._changed:
            works = list(self._works.values())
        active = sum(work.trajectory is not None for work in works)
        return EngineStats(len(works), active, self._steps, self._rows)

    async def warm_up(self) -> None:
        """See `Engine`."""
        self._decoders = await asyncio.to_thread(self._load)
        rates = {decoder.config.sample_rate for decoder in self._decoders.values()}
        if len(rates) != 1:
            raise ValueError(f"decoders of one engine need one sample rate, found {sorted(rates)}")
        (self.sample_rate,) = rates
        voice = VoiceConditioning(
            np.zeros(0, np.int64),
            np.zeros((0, 80), np.float32),
            np.ones(SPEAKER_WIDTH, np.float32),
        )
        for flow_model in self._decoders:
            for whole in (False, True):
                async with self.open(DecodeRequest(voice, flow_model, whole=whole)) as stream:
                    await stream.push([0] * 8 * GROUP_SIZE)
                    stream.end()
                    async for _ in stream:
                        pass

    def _wake(self) -> None:
        with self._changed:
            self._dirty = True
            self._changed.notify()

    def _close(self, stream: TorchStream) -> None:
        with self._changed:
            self._works.pop(stream, None)

    def _fail(self, works: Sequence[_Work], failure: ParleyError) -> None:
        for work in works:
            self._close(work.stream)
            work.trajectory = None
            work.stream.fail(failure)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._dirty and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                self._dirty = False
                works = list(self._works.values())
            if self._guarded(works, self._tick, works):
                with self._changed:
                    self._dirty = True

    def _tick(self, works: Sequence[_Work]) -> bool:
        """Advance what is most urgent by one step; whether there was anything to do."""
        for work in works:
            self._charged([work], self._begin, work)
        ready = [work for work in works if work.trajectory is not None and not work.stream.closed]
        chosen = choose(
            ready,
            lambda work: work.stream.last_sound,
            lambda work: work.stream.deadline,
            _frames,
            self._clock(),
            self._settings.reserve,
            self._settings.max_frames,
        )
        by_decoder: dict[int, list[_Work]] = defaultdict(list)
        for work in chosen:
            by_decoder[id(work.decoder)].append(work)
        for same in by_decoder.values():
            for group in by_length(same, _frames):
                self._charged(group, self._step, group)
            self._vocode([work for work in same if _finished(work)])
        return bool(ready)

    def _begin(self, work: _Work) -> None:
        """Give the decoding its new tokens and start its next window, if it can."""
        stream = work.stream
        if work.decode is None:
            work.decode = self._decoding(work.decoder, stream.request)
        ids, ended = stream.take()
        if ids:
            work.decode.push(ids)
        if ended:
            work.decode.end()
        if work.trajectory is None and stream.may_run_ahead:
            work.trajectory = work.decode.next()

    def _decoding(self, decoder: Decoder, request: DecodeRequest) -> Decode:
        noise = SeededNoise(request.seed)
        if request.whole:
            return WholeDecode(decoder, decoder.voice(request.voice), noise)
        windows = self._settings.windows
        voice = decoder.voice(request.voice, windows.max_prompt_frames)
        return WindowedDecode(decoder, voice, noise, windows)

    def _step(self, group: Sequence[_Work]) -> None:
        decoder = group[0].decoder
        rate = decoder.config.flow.inference_cfg_rate
        trajectories = [_trajectory(work) for work in group]
        euler_step(decoder.flow.estimator, trajectories, decoder.grid, rate)
        self._steps += 1
        self._rows += len(group)

    def _vocode(self, works: Sequence[_Work]) -> None:
        """Turn finished windows into sound, those of one size in one batch."""
        by_size: dict[int, list[tuple[_Work, Excitation]]] = defaultdict(list)
        for work in works:
            excitation = self._charged([work], _excite, work)
            if excitation is not None:
                by_size[excitation.mel.shape[1]].append((work, excitation))
        for same in by_size.values():
            self._charged([work for work, _ in same], _generate, same)

    def _charged(self, works: Sequence[_Work], call: Callable[[_A], _R], argument: _A) -> _R | None:
        """Run one computation, guarded, and charge its time to its streams."""
        begun = time.perf_counter()
        try:
            return self._guarded(works, call, argument)
        finally:
            share = (time.perf_counter() - begun) / len(works)
            for work in works:
                work.stream.usage.compute_seconds += share

    def _guarded(self, works: Sequence[_Work], call: Callable[[_A], _R], argument: _A) -> _R | None:
        """Run one computation; its failure ends its own streams only, never the thread."""
        try:
            return call(argument)
        except Exception as error:
            _log.exception("decoding failed")
            failure = Internal("the vocoder failed on this request", reason="DECODE_FAILED")
            failure.__cause__ = error
            self._fail(works, failure)
            return None


def _trajectory(work: _Work) -> Trajectory:
    if work.trajectory is None:
        raise RuntimeError("the stream has no window on its way")
    return work.trajectory


def _frames(work: _Work) -> int:
    return _trajectory(work).frames


def _finished(work: _Work) -> bool:
    return work.trajectory is not None and work.trajectory.step == len(work.decoder.grid.times)


def _excite(work: _Work) -> Excitation:
    if work.decode is None:
        raise RuntimeError("the stream was never begun")
    trajectory, work.trajectory = _trajectory(work), None
    return work.decode.excite(trajectory)


def _generate(same: Sequence[tuple[_Work, Excitation]]) -> None:
    decoder = same[0][0].decoder
    mel = torch.stack([excitation.mel for _, excitation in same])
    source = torch.stack([excitation.source for _, excitation in same])
    for (work, _), sound in zip(same, decoder.hift.generate(mel, source), strict=True):
        if work.decode is None:
            raise RuntimeError("the stream was never begun")
        work.stream.deliver(work.decode.emit(sound))
