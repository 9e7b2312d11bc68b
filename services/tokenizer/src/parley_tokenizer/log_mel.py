"""Whisper log-mel features for the semantic branch, of whole pieces and of streams (spec 1.4).

Contract: 16 kHz float32 audio; frame ``t`` is centred at sample ``160 t``; ``N`` samples have
``N // 160`` frames of 128 bins. `log_mel` computes log10 energies, `normalize` clips and scales
them; they are apart because a stream knows its peak only so far. `LogMelSlots` gives a stream, in
blocks of a fixed size, the very frames of the whole recording. Not for the linguistic branch.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from parley_core.audio.mel import slaney_filters

from parley_tokenizer.wave import SAMPLE_RATE, Wave

MEL_BINS = 128
HOP = 160
FRAMES_PER_CODE = 4

_WINDOW = 400
_HALF = _WINDOW // 2
_FLOOR = 1e-10
_RANGE = np.float32(8)
_SHIFT = np.float32(4)


Features = npt.NDArray[np.float32]


def log_mel(wave: Wave) -> Features:
    """Log10 mel energies of one piece, reflected at both ends.

    Args:
        wave: ``[N]``, ``N > 200``.

    Returns:
        ``[128, N // 160]``.
    """
    return _frames(np.pad(wave, _HALF, mode="reflect")[None])[0, :, : len(wave) // HOP]


def normalize(features: Features, peak: float) -> Features:
    """Clips to 8 decades below ``peak`` and scales to about -1..1; any shape."""
    clipped = np.maximum(features, np.float32(peak) - _RANGE)
    return (clipped + _SHIFT) / _SHIFT


class LogMelSlots:
    """Log10 mel energies of a fixed number of streams, each fed in whole blocks.

    After ``k`` blocks a stream has ``k * block / 160 - 1`` frames: the newest one still needs
    samples of the next block. `step` with a shorter part ends the utterance.
    """

    def __init__(self, slots: int, block_samples: int) -> None:
        self._block = block_samples
        self._overlap = np.zeros((slots, _HALF + HOP), dtype=np.float32)
        self._taken = np.zeros(slots, dtype=np.int64)

    def reset(self, slot: int) -> None:
        """Forgets the stream in a slot."""
        self._taken[slot] = 0

    def step(self, slots: Sequence[int], parts: Sequence[Wave]) -> list[Features]:
        """Advances some streams.

        Args:
            slots: which streams; no slot twice.
            parts: per stream one whole block of samples, or fewer at the end of its utterance.

        Returns:
            Per stream its new frames ``[128, n]``.
        """
        new: dict[int, Features] = {}
        whole = [row for row, part in enumerate(parts) if len(part) == self._block]
        if whole:
            used = np.array([slots[row] for row in whole])
            audio = np.stack([parts[row] for row in whole])
            opening = self._taken[used] == 0
            reflected = np.pad(audio[:, _HALF:0:-1], ((0, 0), (HOP, 0)))
            before = np.where(opening[:, None], reflected, self._overlap[used])
            frames = _frames(np.concatenate([before, audio], axis=1))
            self._overlap[used] = audio[:, -(_HALF + HOP) :]
            self._taken[used] += self._block
            for index, row in enumerate(whole):
                # The first frame of a new stream would lie before its first sample.
                new[row] = frames[index, :, 1:] if opening[index] else frames[index]
        for row, part in enumerate(parts):
            if row not in new:
                new[row] = self._finish(slots[row], part)
        return [new[row] for row in range(len(parts))]

    def _finish(self, slot: int, part: Wave) -> Features:
        taken = int(self._taken[slot])
        self._taken[slot] = 0
        if not taken:
            return log_mel(part) if len(part) > _HALF else np.zeros((MEL_BINS, 0), np.float32)
        signal = np.concatenate([self._overlap[slot], part])
        frames = _frames(np.pad(signal, (0, _HALF), mode="reflect")[None])[0]
        missing = (taken + len(part)) // HOP - (taken // HOP - 1)
        rest: Features = frames[:, :missing]
        return rest


@torch.inference_mode()
def _frames(signal: npt.NDArray[np.float32]) -> Features:
    """``[B, N]`` without further padding to ``[B, 128, (N - 400) // 160 + 1]``."""
    frames = torch.from_numpy(signal).unfold(1, _WINDOW, HOP) * _HANN
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()
    energies: Features = (power @ _FILTERS).clamp_(min=_FLOOR).log10_().transpose(1, 2).numpy()
    return energies


_FILTERS = torch.from_numpy(
    slaney_filters(SAMPLE_RATE, _WINDOW, MEL_BINS, 0.0, SAMPLE_RATE / 2).T.copy()
)
_HANN = torch.hann_window(_WINDOW, periodic=True)
