"""Windowed-sinc resampling, number for number as Step-Audio's reference does it.

The reference resamples with torchaudio's defaults: a Hann-windowed sinc, 6 zero crossings, roll-off
0.99, the kernel computed in float64 and cast to float32 (golden 02_wave, tolerance 2e-6). Model
inputs that must agree with the reference go through here: tokenizer input, prompt mel, speaker
embedding.

Contract: whole signals in, whole signals out; equal rates return the signal unchanged; the output
has ``ceil(N * target / source)`` samples. Any pair of rates costs the same per sample, because only
the taps inside the window are kept. Not for live streams and not for playback: that is
``parley_core.audio.Resampler``.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99
_BLOCK_OUTPUTS = 1 << 15


def resample_sinc(
    wave: npt.NDArray[np.float32], source_rate: int, target_rate: int
) -> npt.NDArray[np.float32]:
    """Resamples one or many channels.

    Args:
        wave: float32 ``[..., N]``.
        source_rate: sample rate of ``wave`` in Hz.
        target_rate: wanted sample rate in Hz.

    Returns:
        float32 ``[..., ceil(N * target_rate / source_rate)]``.

    Raises:
        ValueError: a rate is not positive.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise ValueError(f"sample rates must be positive, got {source_rate} and {target_rate}")
    wave = np.asarray(wave, dtype=np.float32)
    if source_rate == target_rate:
        return wave
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    kernel, first_tap = sinc_kernel(source, target)
    taps = kernel.shape[1]
    outputs = -(-wave.shape[-1] * target // source)

    margin = taps + source
    padded = np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(margin, margin)])
    resampled = np.empty((*wave.shape[:-1], outputs), dtype=np.float32)
    tap_offsets = np.arange(taps)
    for begin in range(0, outputs, _BLOCK_OUTPUTS):
        position = np.arange(begin, min(begin + _BLOCK_OUTPUTS, outputs))
        frame, phase = np.divmod(position, target)
        start = margin + frame * source + first_tap[phase]
        windows = padded[..., start[:, None] + tap_offsets]
        resampled[..., begin : begin + len(position)] = np.einsum(
            "...nk,nk->...n", windows, kernel[phase]
        )
    return resampled


@lru_cache(maxsize=16)
def sinc_kernel(source: int, target: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Polyphase filter for coprime rates.

    Output ``frame * target + phase`` is the sum of the samples from ``frame * source +
    first_tap[phase]`` on, weighted with ``kernel[phase]``.

    Returns:
        ``kernel``, float32 ``[target, taps]``, and ``first_tap``, int64 ``[target]``.
    """
    cutoff = min(source, target) * _ROLLOFF
    half_width = math.ceil(_ZERO_CROSSINGS * source / cutoff)
    phase = np.arange(target, dtype=np.int64)
    first_tap = phase * source // target - half_width
    sample = first_tap[:, None] + np.arange(2 * half_width + 2)
    # The reference divides the phase in float32 before all else is float64; from 22.05 to 16 kHz
    # the difference shows (1e-5).
    phase_time = (phase.astype(np.float32) / np.float32(target)).astype(np.float64)
    time = (sample / source - phase_time[:, None]) * cutoff
    time = np.clip(time, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = np.cos(time * math.pi / _ZERO_CROSSINGS / 2) ** 2
    kernel = np.sinc(time) * window * (cutoff / source)
    return kernel.astype(np.float32), first_tap
