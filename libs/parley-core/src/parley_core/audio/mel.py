"""Slaney's mel scale and filters, which Whisper's features and the decoder's mel share.

Area-normalised triangles, as librosa makes them by default. Not for Kaldi's fbank (another scale,
no normalisation), and not for framing, windows or logarithms: those differ by model.
"""

import math

import numpy as np
import numpy.typing as npt

_LINEAR_STEP_HZ = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_STEP_HZ
_LOG_STEP = math.log(6.4) / 27


def slaney_filters(
    sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float
) -> npt.NDArray[np.float32]:
    """Weights of each spectrum bin in each band, ``[num_mels, n_fft / 2 + 1]``.

    Args:
        sample_rate: Hz.
        n_fft: samples of a frame.
        num_mels: bands.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz.
    """
    edges = _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), num_mels + 2))
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None], dtype=np.float32)


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_STEP_HZ
    return _LOG_FROM_MEL + math.log(hz / _LOG_FROM_HZ) / _LOG_STEP


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithmic = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, mel * _LINEAR_STEP_HZ, logarithmic)
