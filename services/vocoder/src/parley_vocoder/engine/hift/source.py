"""Pitch and excitation of HiFT: the f0 predictor and the harmonic source (spec section 4.4).

Randomness comes from the caller, so that a stream can tie it to absolute positions; the phase at
any sample can be handed to a later call, so that a pitch contour cut in pieces sounds as one.
"""

import math

import torch
from torch import Tensor, nn

from parley_vocoder.config import HiftConfig

_F0_LAYERS = 5


class F0Predictor(nn.Module):
    """Five conv k3 + ELU layers and a linear head: Hz per mel frame."""

    # Frames to each side that one frame's pitch depends on.
    REACH = _F0_LAYERS

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = config.in_channels
        for _ in range(_F0_LAYERS):
            layers += [nn.Conv1d(width, config.f0_channels, 3, padding=1), nn.ELU()]
            width = config.f0_channels
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.f0_channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """`[B, 80, T]` to f0 in Hz, `[B, T]`, never negative."""
        f0: Tensor = self.classifier(self.condnet(mel).transpose(1, 2))
        return f0.squeeze(-1).abs()


class HarmonicSource(nn.Module):
    """Sum of sines at the multiples of f0, noise where unvoiced (`m_source`)."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.harmonics = config.nb_harmonics + 1
        self._rate = config.sampling_rate
        self._amplitude = config.nsf_alpha
        self._voiced_noise = config.nsf_sigma
        self._threshold = config.nsf_voiced_threshold
        self._samples_per_frame = config.samples_per_frame
        self.l_linear = nn.Linear(self.harmonics, 1)

    def forward(
        self, f0: Tensor, offset: Tensor, noise: Tensor, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Excitation for a run of mel frames.

        Args:
            f0: `[B, T]` Hz.
            offset: `[B, H]` constant phase of each harmonic, radians (0 for the fundamental).
            noise: `[B, H, N]` standard normal, N = T * samples per frame.
            start: `[B, H]` phase just before the first sample, in cycles; zeros when None.

        Returns:
            The source `[B, 1, N]` and the phase after each sample `[B, H, N]`, in cycles 0..1.
        """
        per_sample = f0[:, None].repeat_interleave(self._samples_per_frame, dim=-1)
        multiple = torch.arange(1, self.harmonics + 1, device=f0.device, dtype=f0.dtype)
        cycles = torch.cumsum(per_sample * multiple[:, None] / self._rate, dim=-1)
        if start is not None:
            cycles = cycles + start[:, :, None]
        cycles = cycles % 1
        sines = self._amplitude * torch.sin(2 * math.pi * cycles + offset[:, :, None])
        voiced = (per_sample > self._threshold).to(f0.dtype)
        level = voiced * self._voiced_noise + (1 - voiced) * self._amplitude / 3
        mixed = self.l_linear((sines * voiced + level * noise).transpose(1, 2))
        return torch.tanh(mixed).transpose(1, 2), cycles
