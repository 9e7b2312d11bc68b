"""Log-mel spectrogram of a voice prompt, as the flow model was trained on (spec 4.5, golden 07).

Resampling and STFT run on torch although numpy would do: in near-silence the logarithm turns
float32 rounding into differences of 5e-4, more than the golden tolerance, so the same operations
are used that the reference uses. Blocking.

Not the mel of the semantic tokenizer (Whisper's) and not the fbank of the speaker model (Kaldi's).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from parley_core.audio.mel import slaney_filters
from parley_core.audio.sinc import resample_sinc, sinc_kernel
from torch.nn import functional as F

_FLOOR = 1e-5
_MAX_DENSE_KERNEL = 1 << 22


@dataclass(frozen=True)
class MelSettings:
    """The ``feat_extractor`` block of ``cosyvoice.yaml``; rates and frequencies in Hz."""

    sample_rate: int
    n_fft: int
    hop_size: int
    win_size: int
    num_mels: int
    fmin: float
    fmax: float


def log_mel(wave: npt.NDArray[np.float32], settings: MelSettings) -> npt.NDArray[np.float32]:
    """Log-mel frames of a whole signal.

    Args:
        wave: float32 ``[N]`` at ``settings.sample_rate``, longer than ``(n_fft - hop_size) / 2``.
        settings: STFT and mel settings.

    Returns:
        float32 ``[F, num_mels]``, natural logarithm, floor ``ln 1e-5``.
    """
    margin = (settings.n_fft - settings.hop_size) // 2
    samples = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None]
    padded = F.pad(samples[None], (margin, margin), mode="reflect")[0]
    spectrum = torch.stft(
        padded,
        settings.n_fft,
        settings.hop_size,
        settings.win_size,
        torch.hann_window(settings.win_size),
        center=False,
        return_complex=True,
    )
    magnitude = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9)
    mel = torch.from_numpy(_mel_filters(settings)) @ magnitude[0]
    return cast(npt.NDArray[np.float32], torch.log(mel.clamp(min=_FLOOR)).T.contiguous().numpy())


def resample_for_mel(
    wave: npt.NDArray[np.float32], source_rate: int, target_rate: int
) -> npt.NDArray[np.float32]:
    """Resamples ``[N]`` as ``resample_sinc`` does, rounding as the reference's convolution does.

    Rates without a common divisor would need a huge dense kernel; they take ``resample_sinc``,
    which differs in the last bit only.
    """
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    if source == target or source * target > _MAX_DENSE_KERNEL:
        return resample_sinc(wave, source_rate, target_rate)
    kernel, first_tap = sinc_kernel(source, target)
    width = -int(first_tap[0])
    dense = np.zeros((target, source + 2 * width + 2), np.float32)
    columns = (first_tap + width)[:, None] + np.arange(kernel.shape[1])
    np.put_along_axis(dense, columns, kernel, axis=1)
    filters = torch.from_numpy(dense[:, : source + 2 * width])[:, None]
    samples = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None, None]
    phases = F.conv1d(F.pad(samples, (width, width + source)), filters, stride=source)
    outputs = -(-len(wave) * target // source)
    return cast(npt.NDArray[np.float32], phases[0].T.reshape(-1)[:outputs].numpy())


@lru_cache(maxsize=4)
def _mel_filters(settings: MelSettings) -> npt.NDArray[np.float32]:
    return slaney_filters(
        settings.sample_rate, settings.n_fft, settings.num_mels, settings.fmin, settings.fmax
    )
