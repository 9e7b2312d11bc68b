"""Fundamental frequency of clean speech: YIN, whole utterances at once.

Targets for the heads and the vocoder's f0 predictor; flite's voices are clean, so no tracking over
time. Not for noisy recordings.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 60.0, 400.0
_WINDOW_S = 0.035
_DIP, _VOICED = 0.12, 0.22


def fundamental(
    samples: NDArray[np.float32], rate: int, hop: int, count: int
) -> NDArray[np.float32]:
    """[count] Hz at samples 0, hop, 2 hop ...; 0 where unvoiced."""
    window, longest = int(_WINDOW_S * rate), int(rate / LOWEST)
    shortest = int(rate / HIGHEST)
    span = window + longest
    padded = np.pad(samples, (span // 2, span + count * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, span)[: count * hop : hop]
    size = 1 << (span + window - 1).bit_length()
    cross = np.fft.irfft(
        np.fft.rfft(frames, size) * np.conj(np.fft.rfft(frames[:, :window], size)), size
    )[:, : longest + 1]
    squares = np.pad(np.cumsum(frames.astype(np.float64) ** 2, axis=1), ((0, 0), (1, 0)))
    energy = squares[:, window : window + longest + 1] - squares[:, : longest + 1]
    difference = np.maximum(energy[:, :1] + energy - 2 * cross, 0)
    mean = np.cumsum(difference[:, 1:], axis=1) / np.arange(1, longest + 1)
    normal = np.ones_like(difference)
    normal[:, 1:] = difference[:, 1:] / np.maximum(mean, 1e-9)
    body = normal[:, shortest:]
    dips = (body[:, 1:-1] < _DIP) & (body[:, 1:-1] <= body[:, :-2]) & (body[:, 1:-1] < body[:, 2:])
    lag = np.where(dips.any(1), dips.argmax(1) + 1, body.argmin(1)) + shortest
    lag = np.clip(lag, 1, longest - 1)
    rows = np.arange(count)
    left, middle, right = (normal[rows, lag + offset] for offset in (-1, 0, 1))
    curve = left - 2 * middle + right
    exact = lag + np.where(
        np.abs(curve) > 1e-9, 0.5 * (left - right) / np.where(curve, curve, 1), 0
    )
    loud = energy[:, 0] > 1e-6 * window + 1e-4 * energy[:, 0].max()
    voiced = (middle < _VOICED) & loud
    return np.where(voiced, rate / np.clip(exact, shortest, longest), 0).astype(np.float32)
