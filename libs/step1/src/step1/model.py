"""The Step-1 decoder in torch: pre-norm, RMSNorm, grouped KV heads, sqrt-ALiBi, SwiGLU (spec 2.2).

One forward pass takes any mix of spans: one token of a running reply, a chunk of a prompt, many of
each. The linear layers see all tokens as one matrix; attention runs once for all one-token spans
and once for each longer one.

Invariant (`batch_invariant=True`, float32 on CPU, one intra-op thread): a token's logits are bit
for bit the same whatever else is in the pass and however its prompt was cut into chunks. The linear
layers see to their own part (`step1.linear`); attention's BLAS picks its kernel, and with it the
order of summation, by the number of rows, so queries are padded to a row count from which the
choice no longer changes, and keys to whole blocks.

Not here: which spans to run (scheduler), which token to take (sampling).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch.nn import functional as F

from step1.alibi import alibi_slopes, sqrt_bias
from step1.config import Step1Config
from step1.engine.kv_cache import KEY_BLOCK, KVCache
from step1.linear import Linear
from step1.logits import IdRanges
from step1.weights import expected_shapes, iter_weights

_QUERY_ROWS = 16
_HEAD_PARTS = 8


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one sequence in one forward pass.

    Attributes:
        slot: Slot of the KV cache that holds the sequence.
        start: Position of the first token; keys 0..start-1 are in the cache.
        length: Number of tokens.
    """

    slot: int
    start: int
    length: int


@dataclass(slots=True)
class _Layer:
    input_norm: torch.Tensor
    qkv: Linear
    out: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(slots=True)
class _AttentionGroup:
    """Spans that one attention call computes; `bias` is `[batch, groups, rows, keys]`."""

    rows: slice | torch.Tensor
    slots: slice
    bias: torch.Tensor
    length: int
    batch_index: torch.Tensor | None


class Step1Model:
    """Weights of one checkpoint and their forward pass."""

    def __init__(
        self,
        config: Step1Config,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        batch_invariant: bool = True,
    ) -> None:
        """Allocate the weights, unset. `load` is the usual way to a model."""
        self.config = config
        self.dtype = dtype
        self.device = torch.device(device)
        self._batch_invariant = batch_invariant
        self._query_rows = _QUERY_ROWS if batch_invariant else 1
        slopes = (
            torch.tensor(config.alibi_slopes, dtype=torch.float32)
            if config.alibi_slopes is not None
            else alibi_slopes(config.num_attention_heads)
        )
        self._slopes = slopes.to(self.device)
        hidden, inner = config.hidden_size, config.intermediate_size
        self._kv_width = config.num_attention_groups * config.head_dim

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        def linear(outputs: int, inputs: int) -> Linear:
            return Linear(empty(outputs, inputs), batch_invariant=batch_invariant)

        self._embed = empty(config.vocab_size, hidden)
        self._layers = [
            _Layer(
                input_norm=empty(hidden),
                qkv=linear(hidden + 2 * self._kv_width, hidden),
                out=linear(hidden, hidden),
                post_norm=empty(hidden),
                gate_up=linear(2 * inner, hidden),
                down=linear(hidden, inner),
            )
            for _ in range(config.num_hidden_layers)
        ]
        self._norm = empty(hidden)
        self._head = self._embed if config.tie_word_embeddings else empty(config.vocab_size, hidden)
        self._head_parts: dict[tuple[int, int], Linear] = {}

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        batch_invariant: bool = True,
        config: Step1Config | None = None,
    ) -> Self:
        """Load a checkpoint folder, shard by shard.

        Args:
            folder: Holds `config.json` and safetensors files.
            dtype: Dtype to compute in, float32 or bfloat16.
            device: torch device.
            batch_invariant: See the module's invariant.
            config: Replaces the folder's own.

        Raises:
            ConfigError: `config.json` is wrong.
            WeightsError: A tensor is missing, truncated or misshapen.
        """
        config = config or Step1Config.load(folder)
        weights = iter_weights(folder, config, dtype)
        first = next(weights)
        model = cls(config, dtype=dtype, device=device, batch_invariant=batch_invariant)
        model.set_weight(*first)
        for name, tensor in weights:
            model.set_weight(name, tensor)
        return model

    def set_weight(self, name: str, tensor: torch.Tensor) -> None:
        """Copy one tensor of the checkpoint to its place in the fused layout, before any pass.

        Raises:
            KeyError: The config calls for no such tensor.
            RuntimeError: The model has computed something already.
        """
        if name not in expected_shapes(self.config):
            raise KeyError(name)
        self._place(name).copy_(tensor)

    def _place(self, name: str) -> torch.Tensor:
        if name == "model.embed_tokens.weight":
            return self._embed
        if name == "model.norm.weight":
            return self._norm
        if name == "lm_head.weight":
            return self._head
        _, _, number, part = name.split(".", 3)
        layer = self._layers[int(number)]
        hidden, inner, kv = self.config.hidden_size, self.config.intermediate_size, self._kv_width
        return {
            "input_layernorm.weight": layer.input_norm,
            "self_attn.q_proj.weight": layer.qkv.weight[:hidden],
            "self_attn.k_proj.weight": layer.qkv.weight[hidden : hidden + kv],
            "self_attn.v_proj.weight": layer.qkv.weight[hidden + kv :],
            "self_attn.o_proj.weight": layer.out.weight,
            "post_attention_layernorm.weight": layer.post_norm,
            "mlp.gate_proj.weight": layer.gate_up.weight[:inner],
            "mlp.up_proj.weight": layer.gate_up.weight[inner:],
            "mlp.down_proj.weight": layer.down.weight,
        }[part]

    def forward(
        self,
        token_ids: Sequence[int],
        spans: Sequence[Span],
        cache: KVCache,
        logits_rows: Sequence[int],
    ) -> torch.Tensor:
        """`hidden_states`, then `logits` over the whole vocabulary.

        Returns:
            float32 `[len(logits_rows), vocab_size]` on the model's device.
        """
        return self.logits(self.hidden_states(token_ids, spans, cache, logits_rows))

    @torch.inference_mode()
    def hidden_states(
        self,
        token_ids: Sequence[int],
        spans: Sequence[Span],
        cache: KVCache,
        wanted_rows: Sequence[int],
    ) -> torch.Tensor:
        """Run the spans, write their keys and values to the cache, return some last hidden states.

        Args:
            token_ids: The tokens of all spans, in the order of `spans`.
            spans: At most one a slot; one-token spans of neighbouring slots are cheapest together.
            cache: Holds the earlier keys of each slot; this pass's keys are added.
            wanted_rows: Indices into `token_ids` of the tokens whose hidden states are wanted.

        Returns:
            `[len(wanted_rows), hidden_size]`, behind the last norm.
        """
        count = len(token_ids)
        positions = torch.tensor(
            [p for span in spans for p in range(span.start, span.start + span.length)],
            device=self.device,
        )
        slots = torch.tensor(
            [span.slot for span in spans for _ in range(span.length)], device=self.device
        )
        groups = self._plan_attention(spans, positions)
        ids = torch.tensor(token_ids, device=self.device)
        hidden = F.embedding(ids, self._embed)
        attended = torch.zeros_like(hidden)
        width = self.config.hidden_size
        shape_kv = (count, self.config.num_attention_groups, self.config.head_dim)
        shape_q = (count, shape_kv[1], self.config.heads_per_group, shape_kv[2])
        for index, layer in enumerate(self._layers):
            normed = self._rms_norm(hidden, layer.input_norm)
            qkv = layer.qkv(normed)
            query = qkv[:, :width].reshape(shape_q)
            cache.write(
                index,
                slots,
                positions,
                qkv[:, width : width + self._kv_width].reshape(shape_kv),
                qkv[:, width + self._kv_width :].reshape(shape_kv),
            )
            for group in groups:
                attended[group.rows] = self._attend(query[group.rows], group, cache, index)
            hidden = hidden + layer.out(attended)
            normed = self._rms_norm(hidden, layer.post_norm)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        rows = torch.tensor(wanted_rows, dtype=torch.int64, device=self.device)
        return self._rms_norm(hidden[rows], self._norm)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, ids: IdRanges | None = None) -> torch.Tensor:
        """Logits of some ids. The head is most of a small model's work: ask for what may come only.

        Args:
            hidden: `[rows, hidden_size]` of `hidden_states`.
            ids: The ids wanted; None: the whole vocabulary.

        Returns:
            float32 `[rows, number of ids]`, columns in the order of `ids`.
        """
        ranges = ((0, self.config.vocab_size),) if ids is None else ids
        parts = [self._head_part(low, high)(hidden) for low, high in ranges]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).float()

    def _head_part(self, low: int, high: int) -> Linear:
        """The head's rows for ids low..high-1. A constraint names few ranges, again and again."""
        part = self._head_parts.get((low, high))
        if part is None:
            if len(self._head_parts) >= _HEAD_PARTS:
                self._head_parts.pop(next(iter(self._head_parts)))
            part = Linear(self._head[low:high], batch_invariant=self._batch_invariant)
            self._head_parts[low, high] = part
        return part

    def _rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        mean_square = x.float().square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.config.rms_norm_eps).to(x.dtype) * weight

    def _plan_attention(
        self, spans: Sequence[Span], positions: torch.Tensor
    ) -> list[_AttentionGroup]:
        singles: list[tuple[int, Span]] = []
        groups: list[_AttentionGroup] = []
        row = 0
        for span in spans:
            if span.length == 1:
                singles.append((row, span))
            else:
                rows = slice(row, row + span.length)
                groups.append(self._prompt_group(span, rows, positions[rows]))
            row += span.length
        if singles:
            groups.append(self._decode_group(singles))
        return groups

    def _decode_group(self, singles: Sequence[tuple[int, Span]]) -> _AttentionGroup:
        low = min(span.slot for _, span in singles)
        high = max(span.slot for _, span in singles) + 1
        starts = [0] * (high - low)
        for _, span in singles:
            starts[span.slot - low] = span.start
        bias = self._bias(torch.tensor(starts, device=self.device), max(starts) + 1)
        rows: slice | torch.Tensor = torch.tensor([row for row, _ in singles], device=self.device)
        first = singles[0][0]
        if [row for row, _ in singles] == list(range(first, first + len(singles))):
            rows = slice(first, first + len(singles))
        batch_index = torch.tensor([span.slot - low for _, span in singles], device=self.device)
        dense = [span.slot for _, span in singles] == list(range(low, high))
        return _AttentionGroup(
            rows=rows,
            slots=slice(low, high),
            bias=self._pad_queries(bias),
            length=1,
            batch_index=None if dense else batch_index,
        )

    def _prompt_group(self, span: Span, rows: slice, positions: torch.Tensor) -> _AttentionGroup:
        bias = self._bias(positions, span.start + span.length)
        bias = bias.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        return _AttentionGroup(
            rows=rows,
            slots=slice(span.slot, span.slot + 1),
            bias=self._pad_queries(bias),
            length=span.length,
            batch_index=None,
        )

    def _bias(self, positions: torch.Tensor, keys: int) -> torch.Tensor:
        """Bias `[len(positions), groups, heads_per_group, keys rounded up to whole blocks]`."""
        block = KEY_BLOCK if self._query_rows > 1 else 1
        bias = sqrt_bias(self._slopes, positions, -(-keys // block) * block)
        groups, heads = self.config.num_attention_groups, self.config.heads_per_group
        return bias.view(bias.shape[0], groups, heads, bias.shape[-1]).to(self.dtype)

    def _pad_queries(self, x: torch.Tensor) -> torch.Tensor:
        # Attention takes queries in blocks: the rest of a block must not be few rows either.
        missing = -x.shape[2] % self._query_rows
        return F.pad(x, (0, 0, 0, missing)) if missing else x

    def _attend(
        self, query: torch.Tensor, group: _AttentionGroup, cache: KVCache, layer: int
    ) -> torch.Tensor:
        """Attention of one group: query `[tokens, groups, heads_per_group, head_dim]`, flat out."""
        keys, values = cache.read(layer, group.slots, group.bias.shape[-1])
        if group.length > 1:
            stacked = query.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        elif group.batch_index is None:
            stacked = query
        else:
            stacked = query.new_zeros((keys.shape[0], *query.shape[1:]))
            stacked[group.batch_index] = query
        queries = stacked.shape[2]
        result = F.scaled_dot_product_attention(
            self._pad_queries(stacked), keys, values, attn_mask=group.bias
        )[:, :, :queries]
        if group.length > 1:
            split = (query.shape[1], group.length, query.shape[2], query.shape[3])
            result = result[0].reshape(split).transpose(0, 1)
        elif group.batch_index is not None:
            result = result[group.batch_index]
        return result.reshape(query.shape[0], -1)
