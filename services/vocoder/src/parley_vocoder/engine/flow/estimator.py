"""The velocity U-Net of the flow (spec section 4.3, step 8), parameter names of `flow.pt`.

Rows of a batch may have different lengths: give their mask and every row comes out as it would
alone, within float noise. Not for: the ODE (`solver`).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parley_vocoder.config import EstimatorConfig
from parley_vocoder.engine.flow.masked import GroupNorm, Mask, attend, zero_padding

_TIME_SCALE = 1000.0


def time_features(t: Tensor, width: int) -> Tensor:
    """Sinusoids of 1000*t: `[B]` to `[B, width]`, sines then cosines."""
    half = width // 2
    rate = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    )
    angle = _TIME_SCALE * t[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeMlp(nn.Module):
    """Time sinusoids to the embedding every residual block adds."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, embedding)
        self.linear_2 = nn.Linear(embedding, embedding)

    def forward(self, features: Tensor) -> Tensor:
        """`[B, width]` to `[B, embedding]`."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(features)))
        return out


def mish(x: Tensor) -> Tensor:
    """Give x * tanh(softplus(x)).

    On CPUs torch's own kernel takes 2.5 times as long and was a fifth of an Euler step.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.mish(x)
    # With e = exp(x): tanh(log(1 + e)) = n / (n + 2), n = e (e + 2); from 20 on that is 1.
    e = x.clamp(max=20).exp_()
    n = (e + 2).mul_(e)
    return (n / (n + 2)).mul_(x)


class ConvBlock(nn.Module):
    """Conv k3, GroupNorm(8), Mish (`block.0`, `block.1`)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [nn.Conv1d(channels_in, channels_out, 3, padding=1), GroupNorm(8, channels_out)]
        )

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """`[B, Cin, T]` to `[B, Cout, T]`."""
        conv, norm = self.block
        return zero_padding(mish(norm(conv(zero_padding(x, mask)), mask)), mask)


class ResnetBlock(nn.Module):
    """Two conv blocks with the time embedding between them, and a 1x1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int, time_embedding: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_embedding, channels_out))
        self.block1 = ConvBlock(channels_in, channels_out)
        self.block2 = ConvBlock(channels_out, channels_out)
        self.res_conv = nn.Conv1d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, mask: Mask | None, time: Tensor) -> Tensor:
        """`[B, Cin, T]` to `[B, Cout, T]`."""
        hidden = self.block1(x, mask) + self.mlp(time)[:, :, None]
        out: Tensor = self.block2(hidden, mask) + self.res_conv(zero_padding(x, mask))
        return out


class Attention(nn.Module):
    """Multi-head self-attention without biases on q, k, v."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_k = nn.Linear(width, heads * head_width, bias=False)
        self.to_v = nn.Linear(width, heads * head_width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_width, width)])

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """`[B, T, C]` to `[B, T, C]`."""
        batch, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, -1).transpose(1, 2)

        mixed = attend(split(self.to_q(x)), split(self.to_k(x)), split(self.to_v(x)), mask)
        out: Tensor = self.to_out[0](mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class GeluProjection(nn.Module):
    """Linear then exact GELU (`ff.net.0.proj`)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, C]` to `[B, T, hidden]`."""
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """GELU feed-forward four times as wide (`ff.net.0.proj`, `ff.net.2`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, C]` to `[B, T, C]`."""
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward over time."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads, head_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """`[B, T, C]` to `[B, T, C]`."""
        x = x + self.attn1(self.norm1(x), mask)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class Downsample(nn.Module):
    """Stride-2 convolution (`conv`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, C, ceil(T/2)]`."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Transposed convolution, twice the frames (`conv`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, C, 2T]`."""
        out: Tensor = self.conv(x)
        return out


class Level(nn.ModuleList):
    """Residual block, transformer blocks and, outside the middle, a resampling layer."""

    def __init__(
        self, config: EstimatorConfig, channels: tuple[int, int], resample: nn.Module | None
    ) -> None:
        blocks = nn.ModuleList(
            TransformerBlock(channels[1], config.num_heads, config.attention_head_dim)
            for _ in range(config.n_blocks)
        )
        resnet = ResnetBlock(*channels, 4 * config.channels[0])
        super().__init__([resnet, blocks, *([] if resample is None else [resample])])

    @property
    def halves(self) -> bool:
        """Whether the resampling layer leaves half the frames."""
        return len(self) == 3 and isinstance(self[2], Downsample)

    def forward(self, x: Tensor, mask: Mask | None, time: Tensor) -> Tensor:
        """`[B, Cin, T]` to `[B, Cout, T]`, before resampling."""
        hidden = self[0](x, mask, time).transpose(1, 2)
        for block in cast(nn.ModuleList, self[1]):
            hidden = block(hidden, mask)
        return cast(Tensor, hidden.transpose(1, 2))

    def resample(self, x: Tensor, mask: Mask | None) -> Tensor:
        """`[B, Cout, T]` at the resolution of the next level."""
        return cast(Tensor, self[2](zero_padding(x, mask)))


class Estimator(nn.Module):
    """Velocity of the flow at (x, t) given mu, speaker and prompt mel."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        channels = config.channels

        def plain(width: int) -> nn.Module:
            return nn.Conv1d(width, width, 3, padding=1)

        last = len(channels) - 1
        inputs = (config.in_channels, *channels[:-1])
        upward = (*reversed(channels), channels[0])
        self.time_mlp = TimeMlp(config.in_channels, 4 * channels[0])
        self.down_blocks = nn.ModuleList(
            Level(config, (inputs[i], width), Downsample(width) if i < last else plain(width))
            for i, width in enumerate(channels)
        )
        self.mid_blocks = nn.ModuleList(
            Level(config, (channels[-1], channels[-1]), None) for _ in range(config.num_mid_blocks)
        )
        self.up_blocks = nn.ModuleList(
            Level(config, (2 * upward[i], width), Upsample(width) if i < last else plain(width))
            for i, width in enumerate(upward[1:])
        )
        self.final_block = ConvBlock(channels[0], channels[0])
        self.final_proj = nn.Conv1d(channels[0], config.out_channels, 1)

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, spks: Tensor, cond: Tensor, mask: Mask | None
    ) -> Tensor:
        """One evaluation.

        Args:
            x: `[B, 80, T]` point of each trajectory.
            mu: `[B, 80, T]` regulated encoder output.
            t: `[B]` time of each row, 0..1; rows may differ.
            spks: `[B, 80]` projected speaker embedding.
            cond: `[B, 80, T]` prompt mel, then zeros.
            mask: valid frames, or None when every row is T long.

        Returns:
            `[B, 80, T]` velocity; padded frames are meaningless.
        """
        dtype = self.final_proj.weight.dtype
        speaker = spks[:, :, None].expand(-1, -1, x.shape[-1])
        hidden = torch.cat([part.to(dtype) for part in (x, mu, speaker, cond)], dim=1)
        time = self.time_mlp(time_features(t, self.in_channels).to(dtype))
        masks = [mask]
        skips: list[Tensor] = []
        for level in cast(list[Level], self.down_blocks):
            hidden = level(hidden, masks[-1], time)
            skips.append(hidden)
            hidden = level.resample(hidden, masks[-1])
            masks.append(_halved(masks[-1]) if level.halves else masks[-1])
        masks.pop()
        for level in cast(list[Level], self.mid_blocks):
            hidden = level(hidden, masks[-1], time)
        for level in cast(list[Level], self.up_blocks):
            level_mask, skip = masks.pop(), skips.pop()
            hidden = torch.cat([hidden[:, :, : skip.shape[-1]], skip], dim=1)
            hidden = level.resample(level(hidden, level_mask, time), level_mask)
        out: Tensor = self.final_proj(self.final_block(hidden, mask))
        return out


def _halved(mask: Mask | None) -> Mask | None:
    return None if mask is None else mask.halved()
