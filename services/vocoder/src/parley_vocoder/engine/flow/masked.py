"""Layers that give a padded sequence exactly what it would get alone.

The U-Net normalises over time (GroupNorm) and attends without a mask, so plain zero-padding would
change every frame of a shorter sequence. Here statistics count valid frames only, padded keys are
invisible, and padded inputs of convolutions are zero, which is what the edge of a sequence sees.
With `mask=None` (all rows of equal length) the stock kernels run.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mask:
    """Valid frames of a padded batch, at one time resolution.

    Attributes:
        frames: `[B, 1, T]` of ones and zeros in the batch's dtype.
        counts: `[B]` number of valid frames, same dtype.
        keys: `[B, 1, 1, T]` bool, true where attention may look.
    """

    def __init__(self, lengths: Tensor, total: int, dtype: torch.dtype) -> None:
        valid = torch.arange(total, device=lengths.device)[None] < lengths[:, None]
        self.lengths = lengths
        self.frames = valid[:, None].to(dtype)
        self.counts = lengths.to(torch.float32)
        self.keys = valid[:, None, None]

    def halved(self) -> "Mask":
        """The mask after a stride-2 convolution (kernel 3, padding 1)."""
        return Mask((self.lengths + 1) // 2, (self.frames.shape[-1] + 1) // 2, self.frames.dtype)


def zero_padding(x: Tensor, mask: Mask | None) -> Tensor:
    """`[B, C, T]` with padded frames set to zero."""
    return x if mask is None else x * mask.frames


class GroupNorm(nn.GroupNorm):
    """GroupNorm over the valid frames of each row."""

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """`[B, C, T]` to `[B, C, T]`; values in padded frames are meaningless."""
        if mask is None:
            return super().forward(x)
        batch, channels, length = x.shape
        per_group = channels // self.num_groups
        grouped = x.float().view(batch, self.num_groups, per_group, length)
        valid = mask.frames.float()[:, :, None]
        count = (mask.counts * per_group)[:, None, None, None]
        mean = (grouped * valid).sum(dim=(2, 3), keepdim=True) / count
        centred = (grouped - mean) * valid
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
        normal = (centred * torch.rsqrt(variance + self.eps)).view(batch, channels, length)
        return (normal * self.weight[:, None] + self.bias[:, None]).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None) -> Tensor:
    """Scaled dot-product attention over `[B, heads, T, d]`, valid keys only."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=None if mask is None else mask.keys
    )
