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
from torch import Tensor

from parley_tokenizer.wave import SAMPLE_RATE, Wave

MEL_BINS = 128
HOP = 160
FRAMES_PER_CODE = 4

_WINDOW = 400
_HALF = _WINDOW // 2
_FLOOR = 1e-10
_RANGE = 8.0


def log_mel(wave: Wave) -> Tensor:
    """Log10 mel energies of one piece, reflected at both ends.

    Args:
        wave: ``[N]``, ``N > 200``.

    Returns:
        float32 ``[128, N // 160]``.
    """
    padded = torch.from_numpy(np.pad(wave, _HALF, mode="reflect"))
    return _frames(padded[None])[0, :, : len(wave) // HOP]


def normalize(features: Tensor, peak: Tensor | float) -> Tensor:
    """Clips to 8 decades below ``peak`` and scales to about -1..1; any shape."""
    return (torch.clamp(features, min=float(peak) - _RANGE) + 4.0) / 4.0


class LogMelSlots:
    """Log10 mel energies of a fixed number of streams, each fed in whole blocks.

    After ``k`` blocks a stream has ``k * block / 160 - 1`` frames: the newest one still needs
    samples of the next block. `step` with a shorter part ends the utterance.
    """

    def __init__(self, slots: int, block_samples: int) -> None:
        self._block = block_samples
        self._overlap = torch.zeros(slots, _HALF + HOP)
        self._taken = [0] * slots

    def reset(self, slot: int) -> None:
        """Forgets the stream in a slot."""
        self._taken[slot] = 0

    def step(self, slots: Sequence[int], parts: Sequence[Wave]) -> list[Tensor]:
        """Advances some streams.

        Args:
            slots: which streams; no slot twice.
            parts: per stream one whole block of samples, or fewer at the end of its utterance.

        Returns:
            Per stream its new frames ``[128, n]``.
        """
        new: dict[int, Tensor] = {}
        whole = [row for row, part in enumerate(parts) if len(part) == self._block]
        if whole:
            used = [slots[row] for row in whole]
            audio = torch.from_numpy(np.stack([parts[row] for row in whole]))
            opening = torch.tensor([self._taken[slot] == 0 for slot in used])
            reflected = torch.nn.functional.pad(audio[:, 1 : _HALF + 1].flip(1), (HOP, 0))
            before = torch.where(opening[:, None], reflected, self._overlap[used])
            frames = _frames(torch.cat([before, audio], dim=1))
            self._overlap[used] = audio[:, -(_HALF + HOP) :]
            for index, row in enumerate(whole):
                # The first frame of a new stream would lie before its first sample.
                new[row] = frames[index, :, 1:] if opening[index] else frames[index]
                self._taken[slots[row]] += self._block
        for row, part in enumerate(parts):
            if row not in new:
                new[row] = self._finish(slots[row], part)
        return [new[row] for row in range(len(parts))]

    def _finish(self, slot: int, part: Wave) -> Tensor:
        taken, self._taken[slot] = self._taken[slot], 0
        if not taken:
            return log_mel(part) if len(part) > _HALF else torch.zeros(MEL_BINS, 0)
        before = self._overlap[slot].numpy()
        signal = np.concatenate([before, part])
        frames = _frames(torch.from_numpy(np.pad(signal, (0, _HALF), mode="reflect"))[None])[0]
        return frames[:, : (taken + len(part)) // HOP - (taken // HOP - 1)]


def _frames(signal: Tensor) -> Tensor:
    """``[B, N]`` without further padding to ``[B, 128, (N - 400) // 160 + 1]``."""
    window = torch.hann_window(_WINDOW, periodic=True)
    spectrum = torch.fft.rfft(signal.unfold(1, _WINDOW, HOP) * window)
    energies: Tensor = spectrum.abs().square() @ _FILTERS
    return energies.clamp(min=_FLOOR).log10().transpose(1, 2)


def _slaney_filters() -> Tensor:
    """Area-normalised triangles on Slaney's mel scale up to 8 kHz: ``[201, 128]``."""

    def hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        logarithmic = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0))
        return np.where(mel < 15.0, mel * (200.0 / 3.0), logarithmic)

    top = 15.0 + np.log(SAMPLE_RATE / 2 / 1000.0) * 27.0 / np.log(6.4)
    edge = hertz(np.linspace(0.0, top, MEL_BINS + 2))
    frequency = np.linspace(0.0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)[:, None]
    rising = (frequency - edge[:-2]) / np.diff(edge)[:-1]
    falling = (edge[2:] - frequency) / np.diff(edge)[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy((triangles * (2.0 / (edge[2:] - edge[:-2]))).astype(np.float32))


_FILTERS = _slaney_filters()
