"""How far windowed decoding is from decoding the whole: log-mel distance and steps at joins.

Sample-wise differences say nothing here: the phase of the source drifts apart from tiny
differences in f0 while the sound stays the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parley_vocoder.config import MelConfig
from parley_vocoder.contract import AudioChunk


@dataclass(frozen=True, slots=True)
class Distance:
    """Windowed sound against whole sound of the same tokens, voice and seed.

    Attributes:
        log_mel_db: mean absolute difference of the log-mel spectra, dB.
        loudness_db: difference of the overall level, dB.
        join_step: largest sample-to-sample step at any join over the largest one elsewhere.
        join_log_mel_db: as log_mel_db, over the frames that touch a join.
    """

    log_mel_db: float
    loudness_db: float
    join_step: float
    join_log_mel_db: float


def distance(chunks: Sequence[AudioChunk], whole: AudioChunk, config: MelConfig) -> Distance:
    """Compare the chunks of a stream with the whole utterance; lengths must be equal."""
    windowed = np.concatenate([chunk.samples for chunk in chunks])
    if len(windowed) != len(whole.samples):
        raise ValueError(f"{len(windowed)} samples in windows, {len(whole.samples)} in the whole")
    joins = np.array([chunk.start for chunk in chunks[1:]], dtype=np.int64)
    difference = (log_mel(windowed, config) - log_mel(whole.samples, config)).abs()
    decibel = difference.mean(dim=0).numpy() * 20 / math.log(10)
    frames = np.unique(np.clip(joins // config.hop_size, 0, len(decibel) - 1))
    steps = np.abs(np.diff(windowed))
    elsewhere = np.delete(steps, joins - 1)
    return Distance(
        log_mel_db=float(decibel.mean()),
        loudness_db=_level(windowed) - _level(whole.samples),
        join_step=float(steps[joins - 1].max() / elsewhere.max()) if len(joins) else 0.0,
        join_log_mel_db=float(decibel[frames].mean()) if len(frames) else 0.0,
    )


def log_mel(samples: NDArray[np.float32], config: MelConfig) -> Tensor:
    """Natural-log mel magnitudes `[num_mels, frames]`, floored at 1e-5, triangular HTK bands."""
    padding = (config.n_fft - config.hop_size) // 2
    padded = torch.nn.functional.pad(torch.from_numpy(samples)[None, None], (padding, padding))
    window = torch.hann_window(config.win_size)
    spectrum = torch.stft(
        padded[0, 0],
        config.n_fft,
        config.hop_size,
        config.win_size,
        window=window,
        center=False,
        return_complex=True,
    )
    return torch.log((_bands(config) @ spectrum.abs()).clamp(min=1e-5))


def _bands(config: MelConfig) -> Tensor:
    def to_mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = np.linspace(to_mel(config.fmin), to_mel(config.fmax), config.num_mels + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = np.arange(config.n_fft // 2 + 1) * config.sampling_rate / config.n_fft
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None).astype(np.float32))


def _level(samples: NDArray[np.float32]) -> float:
    return 10 * math.log10(float(np.square(samples, dtype=np.float64).mean()) + 1e-12)
