"""Square-root ALiBi attention for vLLM's CPU platform.

The stock CPU backend adds `-slope * (q - k)`; Step-1 wants `-slope * sqrt(q - k)` (spec 2.2).
Layers that ask for the square root are computed here in torch over vLLM's own paged cache; all
other layers go to the stock C++ kernel unchanged.

Cache layout of one layer: [blocks, kv_heads, block_size, 2 * head_size], keys in the first half of
the last axis. The stock kernel packs the same bytes otherwise, so a layer's cache is written and
read by one of the two, never both.

Not for speed on GPUs: there vLLM's Triton backend does this.
"""

from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)
from vllm.v1.kv_cache_interface import AttentionSpec


class SqrtAlibiCpuImpl(CPUAttentionBackendImpl):  # type: ignore[misc]
    """One layer's attention; see the module docstring."""

    def __init__(self, *args: Any, use_alibi_sqrt: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.use_alibi_sqrt = use_alibi_sqrt
        if use_alibi_sqrt:
            unsupported = (
                self.attn_type != AttentionType.DECODER
                or self.sliding_window != -1
                or bool(self.logits_soft_cap)
                or self.sinks is not None
                or self.is_fp8_kv_cache
                or self.alibi_slopes is None
            )
            if unsupported:
                raise NotImplementedError(
                    "square-root ALiBi on CPU is plain causal attention: no sliding window, "
                    "soft cap, sinks or fp8 cache, and slopes are required"
                )

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Writes the step's keys and values [tokens, kv_heads, head_size] to their slots.

        Slot -1 is padding.
        """
        if not self.use_alibi_sqrt:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        tokens = slot_mapping.shape[0]
        kept = (slot_mapping >= 0).nonzero().squeeze(1)
        slots = slot_mapping[kept]
        block_size = kv_cache.shape[2]
        rows = torch.cat((key[:tokens], value[:tokens]), dim=-1)[kept].to(kv_cache.dtype)
        kv_cache[slots // block_size, :, slots % block_size] = rows

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of [tokens, heads, head_size] queries; fills and returns `output`."""
        if not self.use_alibi_sqrt or attn_metadata is None:
            stock: torch.Tensor = super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output,
                output_scale, output_block_scale,
            )  # fmt: skip
            return stock
        starts = attn_metadata.query_start_loc.tolist()
        lengths = attn_metadata.seq_lens.tolist()
        heads = output.view(output.shape[0], self.num_heads, self.head_size)
        decodes = [i for i in range(len(lengths)) if starts[i + 1] - starts[i] == 1]
        if decodes:
            rows = torch.tensor([starts[i] for i in decodes])
            tables = attn_metadata.block_table[decodes]
            heads[rows] = self._attend(
                query[rows].unsqueeze(1), kv_cache, tables, [lengths[i] for i in decodes]
            ).squeeze(1)
        for i, length in enumerate(lengths):
            if starts[i + 1] - starts[i] > 1:
                span = slice(starts[i], starts[i + 1])
                heads[span] = self._attend(
                    query[span].unsqueeze(0),
                    kv_cache,
                    attn_metadata.block_table[i : i + 1],
                    [length],
                ).squeeze(0)
        return output

    def _attend(
        self,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_tables: torch.Tensor,
        lengths: list[int],
    ) -> torch.Tensor:
        """Attends the last positions of sequences of `lengths`, in float32.

        Queries and result are [batch, steps, heads, head_size].
        """
        batch, steps = query.shape[:2]
        block_size = kv_cache.shape[2]
        blocks = -(-max(lengths) // block_size)
        # Gathered blocks [batch, blocks, kv_heads, block_size, 2 * head_size] become
        # [batch, kv_heads, positions, 2 * head_size].
        rows = kv_cache[block_tables[:, :blocks].long()].transpose(1, 2).flatten(2, 3).float()
        keys, values = rows.chunk(2, dim=-1)
        grouped = query.float().view(
            batch, steps, self.num_kv_heads, self.num_queries_per_kv, self.head_size
        )
        scores = torch.einsum("bsghd,bgkd->bghsk", grouped, keys) * self.scale

        ends = torch.tensor(lengths)[:, None, None]
        query_positions = ends - steps + torch.arange(steps)[None, :, None]
        distances = query_positions - torch.arange(keys.shape[2])[None, None, :]
        slopes = self.alibi_slopes.view(self.num_kv_heads, self.num_queries_per_kv)
        bias = slopes[None, :, :, None, None] * distances.clamp(min=0).sqrt()[:, None, None]
        scores = (scores - bias).masked_fill((distances < 0)[:, None, None], -torch.inf)
        # Blocks are recycled without being cleared: what lies behind a sequence's end may be NaN,
        # and 0 * NaN is NaN.
        beyond = torch.arange(values.shape[2])[None, :] >= torch.tensor(lengths)[:, None]
        values = values.masked_fill(beyond[:, None, :, None], 0.0)
        attended = torch.einsum("bghsk,bgkd->bsghd", scores.softmax(dim=-1), values)
        return attended.reshape(batch, steps, self.num_heads, self.head_size).to(query.dtype)


class SqrtAlibiCpuMetadataBuilder(CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """What a step's layers are told; the stock kernel's work plan only where that kernel runs.

    The stock plan knows head sizes in multiples of 32 only; here every size will do.
    """

    def __init__(
        self,
        kv_cache_spec: AttentionSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        layers = get_layers_from_vllm_config(vllm_config, Attention, layer_names)
        self.all_sqrt = all(
            isinstance(layer.impl, SqrtAlibiCpuImpl) and layer.impl.use_alibi_sqrt
            for layer in layers.values()
        )

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> CPUAttentionMetadata:
        """Metadata of one step for this group of layers."""
        if not self.all_sqrt:
            return super().build(common_prefix_len, common_attn_metadata, fast_build)
        return CPUAttentionMetadata(
            num_actual_tokens=common_attn_metadata.num_actual_tokens,
            max_query_len=common_attn_metadata.max_query_len,
            query_start_loc=common_attn_metadata.query_start_loc,
            max_seq_len=common_attn_metadata.max_seq_len,
            seq_lens=common_attn_metadata.seq_lens,
            block_table=common_attn_metadata.block_table_tensor,
            slot_mapping=common_attn_metadata.slot_mapping,
            scheduler_metadata=None,
        )


class SqrtAlibiCpuBackend(CPUAttentionBackend):  # type: ignore[misc]
    """vLLM's CPU backend plus square-root ALiBi."""

    supported_kv_cache_dtypes: ClassVar[list[str]] = ["auto"]

    @classmethod
    def supports_alibi_sqrt(cls) -> bool:
        """Tells vLLM that layers may ask for the square root."""
        return True

    @staticmethod
    def get_impl_cls() -> type[SqrtAlibiCpuImpl]:
        """The implementation class of a layer."""
        return SqrtAlibiCpuImpl

    @staticmethod
    def get_builder_cls() -> type[SqrtAlibiCpuMetadataBuilder]:
        """The class that prepares a step."""
        return SqrtAlibiCpuMetadataBuilder
