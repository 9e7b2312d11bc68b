"""Conformer encoder over token embeddings, espnet relative positions (spec section 4.3, step 3).

Full attention over the tokens that are given, one sequence at a time; no convolution module, no
macaron half. Not for: caching or streaming (the v1 weights were trained on whole sequences).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parley_vocoder.config import EncoderConfig


def relative_positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids of the relative distances length-1 .. -(length-1).

    Args:
        length: tokens in the sequence.
        width: model width d, even.
        like: a tensor of the dtype and device to return.

    Returns:
        `[1, 2*length-1, d]`, sine in the even columns, cosine in the odd ones.
    """
    distance = torch.arange(length - 1, -length, -1, dtype=torch.float32, device=like.device)
    pair = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
    angle = distance[:, None] * torch.exp(pair * -(math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(1, -1, width).to(like.dtype)


class RelativeAttention(nn.Module):
    """Self-attention with a learned bias for content (u) and for position (v)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`[B, T, d]` and `[1, 2T-1, d]` to `[B, T, d]`."""
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)

        query, key, value = (
            split(self.linear_q(x)),
            split(self.linear_k(x)),
            split(self.linear_v(x)),
        )
        place = split(self.linear_pos(positions))
        content = (query + self.pos_bias_u[:, None]) @ key.transpose(-2, -1)
        by_distance = (query + self.pos_bias_v[:, None]) @ place.transpose(-2, -1)
        # Column j of row i holds distance T-1-j; row i needs distance i-j: shift each row left.
        index = torch.arange(length, device=x.device)
        shifted = (length - 1 - index)[:, None] + index
        by_position = by_distance.gather(-1, shifted.expand(batch, self.heads, length, length))
        weights = torch.softmax((content + by_position) / math.sqrt(width // self.heads), dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        out: Tensor = self.linear_out(mixed)
        return out


class FeedForward(nn.Module):
    """Two linear layers around SiLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, d]` to `[B, T, d]`."""
        out: Tensor = self.w_2(F.silu(self.w_1(x)))
        return out


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.output_size
        self.self_attn = RelativeAttention(width, config.attention_heads)
        self.feed_forward = FeedForward(width, config.linear_units)
        self.norm_ff = nn.LayerNorm(width, eps=1e-5)
        self.norm_mha = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`[B, T, d]` to `[B, T, d]`."""
        x = x + self.self_attn(self.norm_mha(x), positions)
        out: Tensor = x + self.feed_forward(self.norm_ff(x))
        return out


class InputLayer(nn.Module):
    """Linear and LayerNorm under the names of the checkpoint (`embed.out.0`, `embed.out.1`)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.out = nn.Sequential(
            nn.Linear(config.input_size, config.output_size),
            nn.LayerNorm(config.output_size, eps=1e-5),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, input]` to `[B, T, d]`, scaled by sqrt(d)."""
        y: Tensor = self.out(x)
        return y * math.sqrt(y.shape[-1])


class ConformerEncoder(nn.Module):
    """Token embeddings to hidden states, each seeing the whole sequence."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.embed = InputLayer(config)
        self.encoders = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(config.output_size, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, input]` to `[B, T, d]`; no padding: every row is T tokens long."""
        x = self.embed(x)
        positions = relative_positions(x.shape[1], x.shape[2], x)
        for layer in self.encoders:
            x = layer(x, positions)
        out: Tensor = self.after_norm(x)
        return out
