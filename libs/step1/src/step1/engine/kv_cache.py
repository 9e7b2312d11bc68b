"""Keys and values of the running sequences: one contiguous slot a sequence.

Memory is `slots * max_len * config.kv_bytes_per_token`; the system hands it out page by page as
slots fill. Prefixes of ended sequences live in `prefix_cache`, not here.
"""

import torch

from step1.config import Step1Config

KEY_BLOCK = 512
"""Slots hold whole blocks of this many positions, so that attention can read whole blocks.

torch's attention on a CPU takes keys in blocks of 512; with fewer, a BLAS without AVX-512 sums in
another order.
"""


class KVCache:
    """Key/value slots `[layers, 2, slots, groups, positions, head_dim]`."""

    def __init__(
        self,
        config: Step1Config,
        *,
        slots: int,
        max_len: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.slots = slots
        self.max_len = max_len
        # Zeros, not empty: padded attention reads positions that were never written, and NaN would
        # spread.
        self._data = torch.zeros(
            config.num_hidden_layers,
            2,
            slots,
            config.num_attention_groups,
            -(-max_len // KEY_BLOCK) * KEY_BLOCK,
            config.head_dim,
            dtype=dtype,
            device=device,
        )

    def write(
        self,
        layer: int,
        slots: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Store keys and values `[tokens, groups, head_dim]` at (slot, position) of each token."""
        self._data[layer, 0][slots, :, positions] = keys
        self._data[layer, 1][slots, :, positions] = values

    def read(self, layer: int, slots: slice, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values `[slots, groups, length, head_dim]`."""
        data = self._data[layer, :, slots, :, :length]
        return data[0], data[1]

    def export(self, slot: int, length: int) -> torch.Tensor:
        """A copy `[layers, 2, groups, length, head_dim]` of a slot's first positions."""
        return self._data[:, :, slot, :, :length].clone()

    def restore(self, slot: int, stored: torch.Tensor, length: int) -> None:
        """Write the first `length` positions of an exported tensor into a slot."""
        self._data[:, :, slot, :, :length] = stored[:, :, :, :length]
