"""The HiFT generator: everything in `hift.pt` (spec section 4.4), in float32.

Weights are plain here; `checkpoint` folds weight norm when it loads them. Every frame depends on
`REACH` frames to each side at most, which is what lets a stream vocode in pieces with exact edges.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parley_vocoder.config import HiftConfig
from parley_vocoder.engine.hift.source import F0Predictor, HarmonicSource

_LAST_SLOPE = 0.01
_LARGEST_MAGNITUDE = 100.0


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, one alpha a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, 1, N]` to `[B, C, 1, N]`."""
        alpha = self.alpha[:, None, None]
        return x + torch.sin(x * alpha).square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each with Snake before it, all residual.

    They run with the channels innermost, which CPUs need a third to a half of the time for.
    """

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            padding = dilation * (kernel - 1) // 2
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, 1, N]`, channels last, to the same."""
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for snake1, conv1, snake2, conv2 in layers:
            inner = _along_time(cast(nn.Conv1d, conv1), snake1(x))
            x = x + _along_time(cast(nn.Conv1d, conv2), snake2(inner))
        return x


def _along_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of one dimension over `[B, C, 1, N]`, channels last."""
    return F.conv2d(
        x,
        conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last),
        conv.bias,
        padding=(0, cast(int, conv.padding[0])),
        dilation=(1, conv.dilation[0]),
    )


def _channels_last(x: Tensor) -> Tensor:
    """`[B, C, N]` to `[B, C, 1, N]`, channels innermost."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class Hift(nn.Module):
    """Mel and excitation to 22.05 kHz sound."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        rates = config.upsample_rates
        widths = [config.base_channels // 2**i for i in range(len(rates) + 1)]
        spectrum = config.istft_n_fft + 2
        self.f0_predictor = F0Predictor(config)
        self.m_source = HarmonicSource(config)
        self.conv_pre = nn.Conv1d(config.in_channels, widths[0], 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, rate, padding=(kernel - rate) // 2)
            for i, (rate, kernel) in enumerate(
                zip(rates, config.upsample_kernel_sizes, strict=True)
            )
        )
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        for i, width in enumerate(widths[1:]):
            # Samples of the source's spectrum for one sample of this stage.
            stride = math.prod(rates[i + 1 :])
            self.source_downs.append(
                nn.Conv1d(spectrum, width, 1)
                if stride == 1
                else nn.Conv1d(spectrum, width, 2 * stride, stride, padding=stride // 2)
            )
            self.source_resblocks.append(
                ResBlock(
                    width,
                    config.source_resblock_kernel_sizes[i],
                    config.source_resblock_dilation_sizes[i],
                )
            )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            )
        )
        self.conv_post = nn.Conv1d(widths[-1], spectrum, 7, padding=3)
        self.register_buffer(
            "window", torch.hann_window(config.istft_n_fft, periodic=True), persistent=False
        )

    def source_spectrum(self, source: Tensor) -> Tensor:
        """Centred STFT of `[B, 1, N]`: real then imaginary parts, `[B, n_fft+2, N/hop+1]`."""
        spectrum = torch.stft(
            source[:, 0],
            self.config.istft_n_fft,
            self.config.istft_hop,
            window=cast(Tensor, self.window),
            return_complex=True,
        )
        return torch.cat([spectrum.real, spectrum.imag], dim=1)

    def spectrum(self, mel: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and phase of the sound's STFT, each `[B, n_fft/2+1, N/hop+1]`.

        Args:
            mel: `[B, 80, T]`.
            source: `[B, 1, N]`, N = T * samples per frame.
        """
        excitation = self.source_spectrum(source)
        kinds = len(self.config.resblock_kernel_sizes)
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.config.lrelu_slope))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            source = self.source_resblocks[i](_channels_last(self.source_downs[i](excitation)))
            wide = _channels_last(x) + source
            blocks = self.resblocks[i * kinds : (i + 1) * kinds]
            mixed: Tensor = sum(block(wide) for block in blocks) / kinds
            x = mixed.squeeze(2).contiguous()
        x = self.conv_post(F.leaky_relu(x, _LAST_SLOPE))
        bins = self.config.istft_n_fft // 2 + 1
        magnitude = torch.exp(x[:, :bins]).clamp(max=_LARGEST_MAGNITUDE)
        return magnitude, torch.sin(x[:, bins:])

    @torch.inference_mode()
    def generate(self, mel: Tensor, source: Tensor) -> Tensor:
        """Sound `[B, N]` within +-audio_limit, from `[B, 80, T]` and the source `[B, 1, N]`."""
        magnitude, phase = self.spectrum(mel, source)
        sound = torch.istft(
            torch.polar(magnitude, phase),
            self.config.istft_n_fft,
            self.config.istft_hop,
            window=cast(Tensor, self.window),
        )
        return sound.clamp(-self.config.audio_limit, self.config.audio_limit)
