"""SANM decoder: token embeddings and encoder frames to token scores, all tokens of a chunk at once.

Contract: tokens look back over the tokens before them (a causal FSMN memory, kept across chunks)
and over the encoder frames of their own chunk and the last rows of the chunk that was decoded
before. A chunk without tokens is not decoded and leaves no trace here. Not autoregressive: no token
sees which ids the others got. Not for counting tokens (see `paraformer.predictor`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paraformer.decoding_config import DecoderConfig

_NORM_EPS = 1e-12


@dataclass
class DecoderCache:
    """State of one stream.

    Attributes:
        memory: ``[blocks, kernel_size - 1, size]`` inputs of the FSMN before this chunk.
        keys: one ``[heads, rows, head_size]`` a block; rows grow from 0 to the look-back.
        values: like ``keys``.
    """

    memory: Tensor
    keys: list[Tensor]
    values: list[Tensor]


class SanmDecoder(nn.Module):
    """The decoder. Parameter names equal those of the checkpoint below ``decoder.``."""

    def __init__(self, config: DecoderConfig, vocabulary_size: int, look_back_rows: int) -> None:
        """Builds it.

        Args:
            config: dimensions from the checkpoint.
            vocabulary_size: number of tokens.
            look_back_rows: encoder rows of earlier chunks that stay visible.
        """
        super().__init__()
        self.config = config
        self.look_back_rows = look_back_rows
        # Input embeddings serve training alone; they are here so that loading can be strict.
        self.embed = nn.ModuleList([nn.Embedding(vocabulary_size, config.size)])
        self.decoders = nn.ModuleList([_Block(config) for _ in range(config.num_blocks)])
        self.decoders3 = nn.ModuleList([_LastBlock(config)])
        self.after_norm = nn.LayerNorm(config.size, eps=_NORM_EPS)
        self.output_layer = nn.Linear(config.size, vocabulary_size)

    def new_cache(self) -> DecoderCache:
        """State at the start of an utterance."""
        config = self.config
        like = self.after_norm.weight
        nothing = like.new_zeros(config.attention_heads, 0, config.head_size)
        return DecoderCache(
            memory=like.new_zeros(config.num_blocks, config.kernel_size - 1, config.size),
            keys=[nothing] * config.num_blocks,
            values=[nothing] * config.num_blocks,
        )

    @torch.inference_mode()
    def forward_chunk(self, embeddings: Tensor, frames: Tensor, cache: DecoderCache) -> Tensor:
        """Scores the tokens of one chunk and advances the cache in place.

        Args:
            embeddings: ``[N, size]``, ``N >= 1``, from the predictor.
            frames: ``[T, size]`` all encoder rows of the chunk, look-ahead included.
            cache: state of the stream.

        Returns:
            ``[N, vocabulary_size]`` logits.
        """
        hidden = embeddings
        for index, block in enumerate(self.decoders):
            hidden = block(hidden, frames, cache, index, self.look_back_rows)
        for block in self.decoders3:
            hidden = block(hidden)
        logits: Tensor = self.output_layer(self.after_norm(hidden))
        return logits


class _Block(nn.Module):
    """Feed-forward, FSMN memory with one residual over both, then cross-attention."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.feed_forward = _FeedForward(config)
        self.self_attn = _Fsmn(config)
        self.src_attn = _CrossAttention(config)
        self.norm1 = nn.LayerNorm(config.size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.size, eps=_NORM_EPS)
        self.norm3 = nn.LayerNorm(config.size, eps=_NORM_EPS)

    def forward(
        self, hidden: Tensor, frames: Tensor, cache: DecoderCache, index: int, look_back: int
    ) -> Tensor:
        tokens = self.norm2(self.feed_forward(self.norm1(hidden)))
        hidden = hidden + self.self_attn(tokens, cache.memory[index])
        attended, cache.keys[index], cache.values[index] = self.src_attn(
            self.norm3(hidden), frames, cache.keys[index], cache.values[index], look_back
        )
        output: Tensor = hidden + attended
        return output


class _LastBlock(nn.Module):
    """Feed-forward without a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.feed_forward = _FeedForward(config)
        self.norm1 = nn.LayerNorm(config.size, eps=_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.feed_forward(self.norm1(hidden))
        return output


class _FeedForward(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.size, config.linear_units)
        self.w_2 = nn.Linear(config.linear_units, config.size, bias=False)
        self.norm = nn.LayerNorm(config.linear_units, eps=_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.w_2(self.norm(F.relu(self.w_1(hidden))))
        return output


class _Fsmn(nn.Module):
    """Depth-wise convolution over this and the tokens before, plus the token itself."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.fsmn_block = nn.Conv1d(
            config.size, config.size, config.kernel_size, groups=config.size, bias=False
        )

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        window = torch.cat([memory, tokens])
        memory.copy_(window[tokens.shape[0] :])
        output: Tensor = self.fsmn_block(window.T).T + tokens
        return output


class _CrossAttention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.linear_q = nn.Linear(config.size, config.size)
        self.linear_k_v = nn.Linear(config.size, 2 * config.size)
        self.linear_out = nn.Linear(config.size, config.size)

    def forward(
        self, tokens: Tensor, frames: Tensor, keys: Tensor, values: Tensor, look_back: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        def by_head(tensor: Tensor) -> Tensor:
            return tensor.view(tensor.shape[0], self.heads, -1).transpose(0, 1)

        key, value = self.linear_k_v(frames).chunk(2, dim=-1)
        keys = torch.cat([keys, by_head(key)], dim=1)
        values = torch.cat([values, by_head(value)], dim=1)
        attended = F.scaled_dot_product_attention(by_head(self.linear_q(tokens)), keys, values)
        output = self.linear_out(attended.transpose(0, 1).reshape(tokens.shape))
        first = max(0, keys.shape[1] - look_back)
        return output, keys[:, first:], values[:, first:]
