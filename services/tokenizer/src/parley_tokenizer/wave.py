"""Conditioning of whole recordings before tokenizing, as the reference does it (spec 1.2).

Contract: float32 mono in, float32 mono at 16 kHz out, in the order resample, peak level, trim. A
rate below 16 kHz is raised, where the reference refuses it. Golden 02_wave: within 2e-6, lengths
exact. Not for live streams: their peak is not known yet (see `parley_tokenizer.level`).
"""

import math

import numpy as np
import numpy.typing as npt
from parley_core.audio import resample_sinc

SAMPLE_RATE = 16000
"""Rate of everything the models see, in Hz."""

PEAK = np.float32(0.999)
PEAK_FLOOR = np.float32(0.01)

_TRIM_DB = 20.0
_TRIM_FRAME = 512
_TRIM_HOP = 128
_SMALLEST = 1e-5
_KEPT_UNIT = 240
_KEPT_BEFORE = 800
_KEPT_AFTER = 4320

Wave = npt.NDArray[np.float32]


def prepare(samples: Wave, sample_rate: int, *, level: bool = True, trim: bool = False) -> Wave:
    """Brings a recording into the form the tokenizer was trained on.

    Args:
        samples: ``[N]`` mono.
        sample_rate: Hz.
        level: scale to the reference's peak.
        trim: cut silence at both ends (voice prompts; the chat path leaves it off).

    Returns:
        ``[M]`` at 16 kHz.
    """
    wave = resample_sinc(samples, sample_rate, SAMPLE_RATE)
    if level:
        wave = set_peak(wave)
    return trim_silence(wave) if trim else wave


def set_peak(wave: Wave) -> Wave:
    """Scales ``[N]`` so that its peak is 0.999; what is quieter than 0.01 is raised 99.9-fold."""
    if not len(wave):
        return wave
    peak = np.abs(wave).max()
    levelled: Wave = wave / np.maximum(peak, PEAK_FLOOR) * PEAK
    return levelled


def trim_silence(wave: Wave) -> Wave:
    """Cuts ``[N]`` to its speech with 50 ms before and about 220 ms after it.

    Where speech begins within the first 50 ms, zeros are put in front; the length is the
    reference's ``240 * n + 4320`` samples, filled with zeros on the right.
    """
    begin, end = speech_bounds(wave)
    length = math.ceil((end - begin) / _KEPT_UNIT) * _KEPT_UNIT + _KEPT_AFTER
    left = begin - _KEPT_BEFORE
    kept = wave[left:] if left > 0 else np.pad(wave, (-left, 0))
    kept = kept[:length]
    return np.pad(kept, (0, length - len(kept)))


def speech_bounds(wave: Wave) -> tuple[int, int]:
    """Finds what lies within 20 dB of the loudest frame, as ``librosa.effects.trim`` does.

    Args:
        wave: ``[N]``.

    Returns:
        First sample and the one after the last; ``(0, N)`` for a recording of zeros.
    """
    if not len(wave):
        return 0, 0
    padded = np.pad(wave, _TRIM_FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _TRIM_FRAME)[::_TRIM_HOP]
    power = np.mean(np.square(frames), axis=1, dtype=np.float32)
    loudness = np.sqrt(power)
    decibels = 20 * np.log10(np.maximum(loudness, _SMALLEST))
    (loud,) = np.nonzero(decibels - decibels.max() > -_TRIM_DB)
    return int(loud[0]) * _TRIM_HOP, min(len(wave), (int(loud[-1]) + 1) * _TRIM_HOP)
