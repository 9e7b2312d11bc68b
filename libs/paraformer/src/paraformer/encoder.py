"""SANM chunk-opt encoder of Paraformer-online, chunk by chunk, many streams at once (spec 1.3).

Contract::

    encoder = SanmEncoder(config)        # names as below `encoder.` in the checkpoint
    cache = encoder.new_cache(slots=8)   # one row a stream
    hidden = encoder.forward_chunk(features, cache, lengths)
        # features [B, n, input_size] float, B == cache.slots
        # lengths [B] int64, 0..n new frames of each stream
        # hidden [B, n, output_size]; rows past lengths[b] are zero
    cache.reset(slot)                    # a new utterance begins in that slot

A stream gets the same frames (within rounding) whatever the other slots hold; a slot with length
0 neither changes nor influences anything. To run some slots only: ``sub = cache.gather(slots)``,
then ``cache.scatter(slots, sub)``. Invariants: the rows of a chunk are ``[left_context cached
frames | new frames]``; the left context is zeros at the start and is NOT masked; positions start
at 1 and run on; there is no look-ahead, so only the cut into chunks (4 frames, the last one
shorter) decides the result, never the arrival of the audio. The last chunk of an utterance may be
shorter than `ChunkConfig.frames`; after it the slot must be reset. Not for features (see
`paraformer.frontend`) nor for text (decoder).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.config import ChunkConfig, EncoderConfig

_NORM_EPS = 1e-12


@dataclass
class EncoderCache:
    """State of B streams. All tensors live on the encoder's device.

    Attributes:
        left: ``[B, left_context, input_size]`` last frames, scaled and with positions added.
        keys: ``[blocks, B, heads, cache_rows, head_size]``, filled from the right.
        values: like ``keys``.
        rows: ``[B]`` int64, valid rows of keys and values.
        position: ``[B]`` int64, frames seen so far.
    """

    left: Tensor
    keys: Tensor
    values: Tensor
    rows: Tensor
    position: Tensor

    @property
    def slots(self) -> int:
        """Number of streams this cache holds."""
        return self.rows.shape[0]

    def reset(self, slot: int) -> None:
        """Forgets everything about one stream."""
        self.left[slot] = 0
        self.rows[slot] = 0
        self.position[slot] = 0

    def gather(self, slots: Tensor) -> "EncoderCache":
        """Copies the given slots (int64 ``[b]``) into a smaller cache."""
        return EncoderCache(
            left=self.left[slots],
            keys=self.keys[:, slots],
            values=self.values[:, slots],
            rows=self.rows[slots],
            position=self.position[slots],
        )

    def scatter(self, slots: Tensor, part: "EncoderCache") -> None:
        """Writes back what `gather` took; ``slots`` must not repeat."""
        self.left[slots] = part.left
        self.keys[:, slots] = part.keys
        self.values[:, slots] = part.values
        self.rows[slots] = part.rows
        self.position[slots] = part.position


class SanmEncoder(nn.Module):
    """The encoder. Parameter names equal those of the checkpoint below ``encoder.``."""

    def __init__(self, config: EncoderConfig, chunk: ChunkConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.chunk = chunk or ChunkConfig()
        self.encoders0 = nn.ModuleList([_Block(config, config.input_size)])
        self.encoders = nn.ModuleList(
            [_Block(config, config.output_size) for _ in range(config.num_blocks - 1)]
        )
        self.after_norm = nn.LayerNorm(config.output_size, eps=_NORM_EPS)
        half = config.input_size // 2
        inverse = torch.exp(
            torch.arange(half, dtype=torch.float32) * (-math.log(10000.0) / (half - 1))
        )
        self.register_buffer("inverse_timescale", inverse, persistent=False)
        self.inverse_timescale: Tensor

    def new_cache(self, slots: int) -> EncoderCache:
        """Makes the state of ``slots`` streams, each at the start of an utterance."""
        config, chunk = self.config, self.chunk
        like = self.after_norm.weight
        kv_shape = (
            config.num_blocks,
            slots,
            config.attention_heads,
            chunk.cache_rows,
            config.head_size,
        )
        return EncoderCache(
            left=like.new_zeros(slots, chunk.left_context, config.input_size),
            keys=like.new_zeros(kv_shape),
            values=like.new_zeros(kv_shape),
            rows=torch.zeros(slots, dtype=torch.int64, device=like.device),
            position=torch.zeros(slots, dtype=torch.int64, device=like.device),
        )

    @torch.inference_mode()
    def forward_chunk(
        self,
        features: Tensor,
        cache: EncoderCache,
        lengths: Tensor,
        *,
        with_context: bool = False,
    ) -> Tensor:
        """Encodes the next frames of every stream and advances the cache in place.

        Args:
            features: ``[B, n, input_size]`` normalised stacked frames; ``n <= chunk.frames``.
                Rows past the length of a stream may hold anything.
            cache: state of B streams.
            lengths: ``[B]`` int64, new frames of each stream; 0 leaves the stream as it is.
            with_context: also return the rows of the left context, which have now seen the new
                frames as look-ahead (what decoding to text reads).

        Returns:
            ``[B, n, output_size]``, or ``[B, left_context + n, output_size]`` with the context;
            rows past the length of a stream are zero.

        Raises:
            ValueError: more frames than a chunk holds, or the batch does not fit the cache.
        """
        batch, new, _ = features.shape
        if new > self.chunk.frames or batch != cache.slots:
            raise ValueError(
                f"features {list(features.shape)} do not fit chunks of {self.chunk.frames} frames"
                f" and a cache of {cache.slots} streams"
            )
        present = torch.arange(new, device=features.device) < lengths[:, None]
        scaled = features * math.sqrt(self.config.output_size) + self._positions(
            cache.position, new
        )
        features = torch.where(present[..., None], scaled, 0)
        hidden = torch.cat([cache.left, features], dim=1)
        valid = torch.cat([present.new_ones(batch, self.chunk.left_context), present], dim=1)
        mask = self._attention_mask(cache.rows, valid)
        kept = self._kept_rows(lengths)

        next_left = lengths[:, None] + torch.arange(self.chunk.left_context, device=features.device)
        left = hidden.gather(1, next_left[..., None].expand(-1, -1, hidden.shape[-1]))
        for index, block in enumerate([*self.encoders0, *self.encoders]):
            hidden = block(hidden, cache.keys[index], cache.values[index], mask, valid, kept)
        cache.left.copy_(left)
        cache.rows.copy_((cache.rows + lengths).clamp(max=self.chunk.cache_rows))
        cache.position.add_(lengths)
        if not with_context:
            hidden, valid = hidden[:, self.chunk.left_context :], present
        return torch.where(valid[..., None], self.after_norm(hidden), 0)

    def encode(self, features: Tensor) -> Tensor:
        """Encodes one whole utterance, chunk by chunk, as a stream would be.

        Args:
            features: ``[T, input_size]``.

        Returns:
            ``[T, output_size]``.
        """
        cache = self.new_cache(1)
        chunks = [
            self.forward_chunk(
                part[None], cache, torch.tensor([part.shape[0]], device=features.device)
            )[0]
            for part in torch.split(features, self.chunk.frames)
        ]
        return torch.cat(chunks) if chunks else features.new_zeros(0, self.config.output_size)

    def _positions(self, position: Tensor, new: int) -> Tensor:
        steps = position[:, None] + torch.arange(1, new + 1, device=position.device)
        angles = steps[..., None].to(self.inverse_timescale.dtype) * self.inverse_timescale
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def _attention_mask(self, rows: Tensor, valid: Tensor) -> Tensor:
        """``[B, 1, 1, cache_rows + left_context + n]``: which keys exist."""
        size = self.chunk.cache_rows
        cached = torch.arange(size, device=rows.device) >= size - rows[:, None]
        return torch.cat([cached, valid], dim=1)[:, None, None]

    def _kept_rows(self, lengths: Tensor) -> Tensor:
        """``[B, cache_rows]``: rows of ``[cache | current]`` that make up the next cache.

        A chunk adds its rows less the last ``left_context`` ones, that is its first ``length``
        rows; so shifting a window over the concatenation by ``length`` drops the oldest and takes
        in the new.
        """
        return lengths[:, None] + torch.arange(self.chunk.cache_rows, device=lengths.device)


class _Block(nn.Module):
    """Pre-norm layer: SANM attention, then a ReLU feed-forward."""

    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        self.self_attn = _SanmAttention(config, input_size)
        self.feed_forward = _FeedForward(config)
        self.norm1 = nn.LayerNorm(input_size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.output_size, eps=_NORM_EPS)
        self.has_residual = input_size == config.output_size

    def forward(
        self,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        valid: Tensor,
        kept: Tensor,
    ) -> Tensor:
        attended = self.self_attn(self.norm1(hidden), keys, values, mask, valid, kept)
        hidden = hidden + attended if self.has_residual else attended
        feed_forward: Tensor = self.feed_forward(self.norm2(hidden))
        return hidden + feed_forward


class _SanmAttention(nn.Module):
    """Attention over cache and chunk, plus a depth-wise convolution (FSMN) over the values."""

    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        size = config.output_size
        self.heads = config.attention_heads
        self.linear_q_k_v = nn.Linear(input_size, 3 * size)
        self.linear_out = nn.Linear(size, size)
        self.fsmn_block = nn.Conv1d(
            size, size, config.kernel_size, groups=size, padding=config.kernel_size // 2, bias=False
        )

    def forward(
        self,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        valid: Tensor,
        kept: Tensor,
    ) -> Tensor:
        batch, rows, _ = hidden.shape
        query, key, value = self.linear_q_k_v(hidden).chunk(3, dim=-1)
        # Absent rows must look like the zero padding at the end of a shorter chunk.
        value = torch.where(valid[..., None], value, 0)
        memory = self.fsmn_block(value.transpose(1, 2)).transpose(1, 2) + value

        def by_head(tensor: Tensor) -> Tensor:
            return tensor.view(batch, rows, self.heads, -1).transpose(1, 2)

        all_keys = torch.cat([keys, by_head(key)], dim=2)
        all_values = torch.cat([values, by_head(value)], dim=2)
        attended = F.scaled_dot_product_attention(
            by_head(query), all_keys, all_values, attn_mask=mask
        )
        index = kept[:, None, :, None].expand(-1, self.heads, -1, keys.shape[-1])
        keys.copy_(all_keys.gather(2, index))
        values.copy_(all_values.gather(2, index))
        output: Tensor = self.linear_out(attended.transpose(1, 2).reshape(batch, rows, -1)) + memory
        return output


class _FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.output_size, config.linear_units)
        self.w_2 = nn.Linear(config.linear_units, config.output_size)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.w_2(F.relu(self.w_1(hidden)))
        return output
