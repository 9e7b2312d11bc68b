"""Randomness tied to absolute positions.

The same seed gives the same values at the same frame whatever window asks for it, so windows of a
stream agree where they overlap and a stream agrees with the whole utterance. Values come from the
Philox counter generator through Box-Muller, both fixed by their papers: no library version changes
them. Not for: anything secret.
"""

from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from parley_vocoder.contract import MEL_BINS

FloatArray = NDArray[np.float32]


class Noise(Protocol):
    """Where a decoding takes its randomness from."""

    def prompt(self, frames: int) -> FloatArray:
        """Flow noise of the prompt's frames, `[80, frames]`."""

    def flow(self, start: int, stop: int) -> FloatArray:
        """Flow noise of new mel frames start..stop, `[80, stop-start]`."""

    def offsets(self, harmonics: int) -> FloatArray:
        """Constant phase of each harmonic, radians `[H]`, 0 for the fundamental."""

    def source(self, harmonics: int, samples_per_frame: int, start: int, stop: int) -> FloatArray:
        """Source noise of mel frames start..stop, `[H, (stop-start)*samples_per_frame]`."""


class _Domain(IntEnum):
    PROMPT = 0
    FLOW = 1
    OFFSETS = 2
    SOURCE = 3


class SeededNoise:
    """Standard normal noise drawn by (seed, purpose, block of frames)."""

    _BLOCK = 16

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def prompt(self, frames: int) -> FloatArray:
        """See `Noise`."""
        return self._frames(_Domain.PROMPT, MEL_BINS, 0, frames).T

    def flow(self, start: int, stop: int) -> FloatArray:
        """See `Noise`."""
        return self._frames(_Domain.FLOW, MEL_BINS, start, stop).T

    def offsets(self, harmonics: int) -> FloatArray:
        """See `Noise`; uniform in +-pi."""
        raw = self._bits(_Domain.OFFSETS, 0).random_raw(harmonics)
        phase = (raw / 2.0**64 * 2 - 1) * np.pi
        phase[0] = 0.0
        return phase.astype(np.float32)

    def source(self, harmonics: int, samples_per_frame: int, start: int, stop: int) -> FloatArray:
        """See `Noise`."""
        values = self._frames(_Domain.SOURCE, harmonics * samples_per_frame, start, stop)
        by_harmonic = values.reshape(stop - start, samples_per_frame, harmonics)
        return by_harmonic.transpose(2, 0, 1).reshape(harmonics, -1)

    def _bits(self, domain: _Domain, block: int) -> np.random.Philox:
        key = np.array([self._seed, domain], dtype=np.uint64)
        return np.random.Philox(key=key, counter=[0, 0, 0, block])

    def _frames(self, domain: _Domain, width: int, start: int, stop: int) -> FloatArray:
        first, last = start // self._BLOCK, -(-stop // self._BLOCK)
        blocks = [self._normal(domain, block, width) for block in range(first, last)]
        if not blocks:
            return np.zeros((0, width), np.float32)
        offset = first * self._BLOCK
        return np.concatenate(blocks)[start - offset : stop - offset]

    def _normal(self, domain: _Domain, block: int, width: int) -> FloatArray:
        count = self._BLOCK * width
        raw = self._bits(domain, block).random_raw((count + 1) // 2)
        radius_bits = (raw >> np.uint64(32)).astype(np.float64)
        angle_bits = (raw & np.uint64(0xFFFFFFFF)).astype(np.float64)
        radius = np.sqrt(-2 * np.log((radius_bits + 1) / 2.0**32)).astype(np.float32)
        angle = (angle_bits * (2 * np.pi / 2.0**32)).astype(np.float32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
        return pairs.reshape(-1)[:count].reshape(self._BLOCK, width)


class GivenNoise:
    """Recorded noise, for comparing with another implementation's run.

    Args:
        prompt: `[80, F1]`.
        flow: `[80, F2]`.
        offsets: `[H]`; zeros when None.
        source: `[H, F2*samples_per_frame]`; zeros when None.
    """

    def __init__(
        self,
        prompt: FloatArray,
        flow: FloatArray,
        offsets: FloatArray | None = None,
        source: FloatArray | None = None,
    ) -> None:
        self._prompt = prompt
        self._flow = flow
        self._offsets = offsets
        self._source = source

    def prompt(self, frames: int) -> FloatArray:
        """See `Noise`; the last `frames` of what was given."""
        return self._prompt[:, self._prompt.shape[1] - frames :]

    def flow(self, start: int, stop: int) -> FloatArray:
        """See `Noise`."""
        return self._flow[:, start:stop]

    def offsets(self, harmonics: int) -> FloatArray:
        """See `Noise`."""
        return np.zeros(harmonics, np.float32) if self._offsets is None else self._offsets

    def source(self, harmonics: int, samples_per_frame: int, start: int, stop: int) -> FloatArray:
        """See `Noise`."""
        if self._source is None:
            return np.zeros((harmonics, (stop - start) * samples_per_frame), np.float32)
        return self._source[:, start * samples_per_frame : stop * samples_per_frame]
