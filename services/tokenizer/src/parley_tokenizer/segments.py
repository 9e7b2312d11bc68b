"""Semantic codes of live streams: windows of fixed duration with context on both sides (spec 1.8).

The speech tokenizer looks both ways over its whole input, so a stream is cut into segments. Each is
encoded inside a window ``[left context | segment | right context]`` and only the segment's codes
are kept. Features are clipped relative to the loudest frame of the last 30 s, as a piece of the
reference is relative to its own peak.

Invariants: no code is revised; codes depend on the audio and on where it was drained, never on its
packets; the work for a second of audio does not grow with the stream; an utterance of ``N`` samples
yields as many codes as the reference gives one piece of that length. Where segment and window
cover the whole utterance the codes are those of `SemanticTokenizer`; elsewhere they may differ, and
the evals measure how much. With `SegmentPlan.placed` a window's positions are those it has in its
30 s piece, which agrees more often; otherwise every window begins at position 0. Not for timing:
`parley_tokenizer.engine` decides when to call.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from parley_tokenizer.log_mel import FRAMES_PER_CODE, MEL_BINS, Features, LogMelSlots, normalize
from parley_tokenizer.semantic import SpeechTokenizer
from parley_tokenizer.wave import Wave

FRAME_RATE = 100
_LONGEST_WINDOW = 3000
_PEAK_MEMORY_FRAMES = 3000
_FEWEST_FRAMES = 3
_SILENCE = -10.0


@dataclass(frozen=True)
class SegmentPlan:
    """How a stream is cut. All durations in seconds, multiples of 0.04 (one code).

    Attributes:
        segment_s: audio whose codes come out of one window.
        left_context_s: audio before it that the network sees.
        right_context_s: audio after it that the network sees, and waits for.
        placed: tell the network where in its 30 s piece a window lies. It must be loaded so, and
            windows of streams at different places run one by one.
    """

    segment_s: float = 0.96
    left_context_s: float = 0.96
    right_context_s: float = 0.2
    placed: bool = False

    def __post_init__(self) -> None:
        for name in ("segment_s", "left_context_s", "right_context_s"):
            frames = getattr(self, name) * FRAME_RATE
            if frames < 0 or abs(frames / FRAMES_PER_CODE - round(frames / FRAMES_PER_CODE)) > 1e-6:
                raise ValueError(f"{name} must be a multiple of 0.04, found {getattr(self, name)}")
        if self.segment_s <= 0:
            raise ValueError("segment_s must be positive")
        if self.window > _LONGEST_WINDOW:
            raise ValueError("segment and contexts must not exceed 30 s together")

    @property
    def segment(self) -> int:
        """Frames of a segment."""
        return round(self.segment_s * FRAME_RATE)

    @property
    def left(self) -> int:
        """Frames of left context."""
        return round(self.left_context_s * FRAME_RATE)

    @property
    def right(self) -> int:
        """Frames of right context."""
        return round(self.right_context_s * FRAME_RATE)

    @property
    def window(self) -> int:
        """Frames of a full window."""
        return self.left + self.segment + self.right

    def delay_s(self, block_s: float) -> float:
        """Audio that codes run behind the newest sample at most, fed in such blocks."""
        return self.segment_s + self.right_context_s + block_s


@dataclass
class _Stream:
    """Features that windows to come still need.

    Attributes:
        frames: ``[128, n]`` log10 energies of frames ``begin`` to ``end``.
        begin: index of the first frame kept.
        done: index of the first frame that has no code yet.
        peaks: loudest energy and number of frames of each block within memory.
    """

    frames: Features = field(default_factory=lambda: np.zeros((MEL_BINS, 0), np.float32))
    begin: int = 0
    done: int = 0
    peaks: deque[tuple[float, int]] = field(default_factory=deque)
    remembered: int = 0

    @property
    def end(self) -> int:
        return self.begin + int(self.frames.shape[1])

    def add(self, frames: Features) -> None:
        if not frames.shape[1]:
            return
        self.frames = np.concatenate([self.frames, frames], axis=1)
        self.peaks.append((float(frames.max()), frames.shape[1]))
        self.remembered += frames.shape[1]
        while self.remembered - self.peaks[0][1] >= _PEAK_MEMORY_FRAMES:
            self.remembered -= self.peaks.popleft()[1]

    @property
    def peak(self) -> float:
        return max((peak for peak, _ in self.peaks), default=_SILENCE)

    def forget_before(self, frame: int) -> None:
        frame = min(frame, self.end)
        if frame > self.begin:
            self.frames = self.frames[:, frame - self.begin :].copy()
            self.begin = frame


@dataclass(frozen=True)
class _Window:
    row: int
    features: Features
    skip: int
    take: int
    first_position: int

    @property
    def batch(self) -> tuple[int, int]:
        """Windows that agree in this run together."""
        return self.features.shape[1], self.first_position


class SemanticSlots:
    """State of the branch for a fixed number of streams."""

    def __init__(
        self, model: SpeechTokenizer, plan: SegmentPlan, slots: int, block_samples: int
    ) -> None:
        self._model = model
        self._plan = plan
        self._mel = LogMelSlots(slots, block_samples)
        self._block = block_samples
        self._streams = [_Stream() for _ in range(slots)]

    def reset(self, slot: int) -> None:
        """Forgets the stream in a slot."""
        self._mel.reset(slot)
        self._streams[slot] = _Stream()

    def drain(self, slot: int) -> list[int]:
        """Codes of everything that is buffered, without waiting for right context."""
        return self._encode([window for window in (self._rest(0, slot),) if window], 1)[0]

    def step(self, slots: Sequence[int], parts: Sequence[Wave]) -> list[list[int]]:
        """Advances some streams.

        Args:
            slots: which streams; no slot twice.
            parts: per stream one whole block of samples, or fewer at the end of its utterance:
                then all that is left comes out and the slot starts anew.

        Returns:
            Per stream its new codes.
        """
        windows: list[_Window] = []
        features = self._mel.step(slots, parts)
        for row, (slot, part, frames) in enumerate(zip(slots, parts, features, strict=True)):
            self._streams[slot].add(frames)
            windows += self._due(row, slot)
            if len(part) != self._block:
                if rest := self._rest(row, slot):
                    windows.append(rest)
                self.reset(slot)
        return self._encode(windows, len(slots))

    def _due(self, row: int, slot: int) -> list[_Window]:
        """Windows of the segments whose right context has arrived."""
        stream, plan = self._streams[slot], self._plan
        windows = []
        while stream.end >= stream.done + plan.segment + plan.right:
            windows.append(self._window(row, stream, stream.done + plan.segment, plan.right))
        return windows

    def _rest(self, row: int, slot: int) -> _Window | None:
        """One window over all frames that have no code yet."""
        stream = self._streams[slot]
        if stream.end < _FEWEST_FRAMES or stream.end <= stream.done:
            return None
        codes = -(-(stream.end - stream.done) // FRAMES_PER_CODE)
        return self._window(row, stream, stream.done + codes * FRAMES_PER_CODE, 0)

    def _window(self, row: int, stream: _Stream, until: int, right: int) -> _Window:
        begin = max(stream.begin, stream.done - self._plan.left)
        frames = stream.frames[:, begin - stream.begin : until + right - stream.begin]
        window = _Window(
            row=row,
            features=normalize(frames, stream.peak),
            skip=(stream.done - begin) // FRAMES_PER_CODE,
            take=(until - stream.done) // FRAMES_PER_CODE,
            first_position=self._place(begin),
        )
        stream.done = until
        stream.forget_before(until - self._plan.left)
        return window

    def _place(self, begin: int) -> int:
        """Position of a frame, in codes since the last piece of 30 s began; 0 if nobody asks."""
        return begin % _LONGEST_WINDOW // FRAMES_PER_CODE if self._plan.placed else 0

    def _encode(self, windows: Sequence[_Window], rows: int) -> list[list[int]]:
        """Runs windows of equal length and place together; codes come back by row, in order."""
        found: dict[int, list[int]] = {}
        for batch in sorted({window.batch for window in windows}):
            group = [at for at, each in enumerate(windows) if each.batch == batch]
            stacked = np.stack([windows[at].features for at in group])
            for at, codes in zip(group, self._model.encode(stacked, batch[1]), strict=True):
                window = windows[at]
                found[at] = codes[window.skip : window.skip + window.take].tolist()
        result: list[list[int]] = [[] for _ in range(rows)]
        for at, window in enumerate(windows):
            result[window.row] += found[at]
        return result
