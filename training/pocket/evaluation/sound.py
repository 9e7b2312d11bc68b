"""What can be told of speech without recognising it: length, pitch, timbre."""

import numpy as np
from numpy.typing import NDArray
from parley_core.audio import resample
from pitch import fundamental

RATE = 16_000
_HOP = 160
_QUIET = 0.02
"""Share of the peak under which there is silence."""

Samples = NDArray[np.float32]


def at_16k(samples: NDArray[np.int16], rate: int) -> Samples:
    """int16 of a service as float32 `[n]` at 16 kHz."""
    return resample(samples.astype(np.float32) / 32768, rate, RATE)


def spoken_seconds(samples: Samples) -> float:
    """Seconds from the first sound to the last."""
    loud = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max(initial=0.0))
    return float(loud[-1] - loud[0]) / RATE if loud.size else 0.0


def voiced_pitch(samples: Samples) -> NDArray[np.float32]:
    """Hz of the voiced frames, one each 10 ms."""
    track = fundamental(samples, RATE, _HOP, len(samples) // _HOP)
    return track[track > 0]


def mean_pitch(samples: Samples) -> float:
    """Mean Hz while voiced; 0 without any voice."""
    track = voiced_pitch(samples)
    return float(track.mean()) if track.size else 0.0


def timbre(samples: Samples) -> NDArray[np.float64]:
    """`[14]`: mean log pitch, then means of cepstral coefficients 1 to 13 over the loud frames.

    Plain signal processing: no model that was trained with these voices looks at it.
    """
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 200), 400)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
    energy = power.sum(1)
    loud = power[energy > 1e-3 * energy.max()]
    logs = np.log(loud @ _bank().T + 1e-10)
    order = np.arange(1, 14)[:, None] * (np.arange(logs.shape[1])[None] + 0.5)
    cepstrum = logs @ np.cos(np.pi * order / logs.shape[1]).T / logs.shape[1]
    pitch = voiced_pitch(samples)
    level = float(np.log(pitch).mean()) if pitch.size else 0.0
    return np.concatenate([[level], cepstrum.mean(0)])


def _bank(bands: int = 26) -> NDArray[np.float64]:
    """Triangles on the mel scale, `[bands, 257]`, from 60 to 7600 Hz."""
    ends = 2595 * np.log10(1 + np.array([60.0, 7600.0]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, bands + 2) / 2595) - 1)
    bins = np.arange(257) * RATE / 512
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.clip(np.minimum(rising, falling), 0, None)
