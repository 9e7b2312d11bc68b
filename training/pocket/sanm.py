"""The streaming SANM encoder in a form that trains: every block of an utterance at once.

Computes exactly what the serving encoder computes block by block (spec 1.3): the rows of a block
are five earlier frames and the new ones; keys and values of the four earlier blocks' first rows;
the FSMN memory inside the block's rows; a last block may be shorter. Blocks of 4 frames make
tokens; blocks of 10, of which the last five come again with look-ahead, are what the recogniser
reads. Parameter names are FunASR's, so the state dict is the checkpoint.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOKEN_CHUNK, RECOGNITION_CHUNK = 4, 10
LEFT, LOOK_BACK, KERNEL = 5, 4, 11


def positions(count: int, width: int) -> Tensor:
    """[count, width] sinusoids, sine half then cosine half, positions from 1."""
    half = width // 2
    scale = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(1, count + 1)[:, None] * scale[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    """Self-attention with an FSMN memory over the rows of a block."""

    def __init__(self, width_in: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q_k_v = nn.Linear(width_in, 3 * width)
        self.linear_out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, KERNEL, groups=width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        """[batch, blocks, rows, width_in] -> [batch, blocks, rows, width].

        Mask [batch, blocks, keys] is true where a key exists, valid [batch, blocks, rows] where a
        row does; keys are those of the cache, then those of the rows.
        """
        batch, blocks, rows = x.shape[:3]
        q, k, v = self.linear_q_k_v(x).chunk(3, dim=-1)
        v = v * valid[..., None]
        # Memory: a depth-wise kernel over few rows is a small matrix a channel, faster here than a
        # grouped convolution.
        offsets = torch.arange(rows)[None, :] - torch.arange(rows)[:, None] + KERNEL // 2
        inside = (offsets >= 0) & (offsets < KERNEL)
        toeplitz = self.fsmn_block.weight[:, 0][:, offsets.clamp(0, KERNEL - 1)] * inside
        memory = torch.einsum("bnjd,dij->bnid", v, toeplitz) + v

        def split(rows: Tensor) -> Tensor:
            return rows.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

        attended = F.scaled_dot_product_attention(
            split(q), split(_with_cache(k)), split(_with_cache(v)), attn_mask=mask[:, :, None, None]
        )
        return self.linear_out(attended.transpose(-2, -3).reshape(batch, blocks, rows, -1)) + memory


def _with_cache(rows: Tensor) -> Tensor:
    """[batch, blocks, rows, width] -> [batch, blocks, cache + rows, width].

    The cache holds the first rows of the four blocks before, all but their last five.
    """
    kept = F.pad(rows[:, :, :-LEFT], (0, 0, 0, 0, LOOK_BACK, 0))[:, :-1]
    cache = torch.cat([kept[:, i : i + rows.shape[1]] for i in range(LOOK_BACK)], dim=2)
    return torch.cat([cache, rows], dim=2)


class FeedForward(nn.Module):
    """Two linear layers with ReLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return self.w_2(F.relu(self.w_1(x)))


class Layer(nn.Module):
    """Pre-norm layer; the first has no residual around its attention because the sizes differ."""

    def __init__(self, width_in: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width_in, width, heads)
        self.feed_forward = FeedForward(width, hidden)
        self.norm1 = nn.LayerNorm(width_in, eps=1e-12)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        """[batch, blocks, rows, width_in] -> [batch, blocks, rows, width]."""
        attended = self.self_attn(self.norm1(x), mask, valid)
        x = x + attended if x.shape[-1] == attended.shape[-1] else attended
        return x + self.feed_forward(self.norm2(x))


class SanmEncoder(nn.Module):
    """`layers` layers of `width`; input 560."""

    def __init__(
        self, width: int, layers: int, heads: int, hidden: int, features: int = 560
    ) -> None:
        super().__init__()
        self.width = width
        self.encoders0 = nn.ModuleList([Layer(features, width, heads, hidden)])
        self.encoders = nn.ModuleList(
            [Layer(width, width, heads, hidden) for _ in range(layers - 1)]
        )
        self.after_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """What the tokenizer reads: [batch, frames, 560] after CMVN -> [batch, frames, width].

        `lengths` [batch] counts frames; output rows past them mean nothing.
        """
        frames = features.shape[1]
        rows = self._blocks(features, lengths, TOKEN_CHUNK, -(-frames // TOKEN_CHUNK))
        return rows[:, :, LEFT:].flatten(1, 2)[:, :frames]

    def recognition(self, features: Tensor, lengths: Tensor) -> Tensor:
        """What the recogniser reads: [batch, frames, 560] -> [batch, 5 + frames, width].

        The first five rows are the empty left context of the first block.
        """
        frames, chunk = features.shape[1], RECOGNITION_CHUNK
        rows = self._blocks(features, lengths, chunk, frames // chunk + 1)
        place = torch.arange(LEFT + frames).expand(len(lengths), -1)
        block = torch.minimum(place // chunk, lengths[:, None] // chunk)
        row = (place - block * chunk).clamp(max=LEFT + chunk - 1)
        flat = rows.flatten(1, 2)
        index = block * (LEFT + chunk) + row
        return flat.gather(1, index[..., None].expand(-1, -1, self.width))

    def _blocks(self, features: Tensor, lengths: Tensor, chunk: int, blocks: int) -> Tensor:
        """[batch, blocks, 5 + chunk, width]."""
        batch, frames, size = features.shape
        x = features * math.sqrt(self.width) + positions(frames, size)
        present = torch.arange(blocks * chunk) < lengths[:, None]
        x = F.pad(x, (0, 0, LEFT, blocks * chunk - frames)) * F.pad(present, (LEFT, 0))[..., None]
        rows = x.unfold(1, LEFT + chunk, chunk).transpose(-1, -2)
        valid = F.pad(present.unflatten(1, (blocks, chunk)), (LEFT, 0), value=True)
        exists = torch.arange(blocks)[:, None] + torch.arange(LOOK_BACK)[None, :] >= LOOK_BACK
        cached = exists.repeat_interleave(chunk, dim=1).expand(batch, -1, -1)
        mask = torch.cat([cached, valid], dim=2)
        for layer in [*self.encoders0, *self.encoders]:
            rows = layer(rows, mask, valid)
        return self.after_norm(rows)
