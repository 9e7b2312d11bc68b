"""Keys and values of recent prompts, so that a prompt that begins the same computes its end only.

Entries are whole token sequences, least recently used first out, bounded in bytes. A lookup may use
any beginning of an entry. An entry that another one begins with is dropped: the longer serves both.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch


class PrefixCache:
    """Token sequences and their exported KV `[layers, 2, groups, tokens, head_dim]`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, tuple[np.ndarray, torch.Tensor]] = OrderedDict()
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, tokens: Sequence[int]) -> tuple[int, torch.Tensor | None]:
        """Longest known beginning of `tokens`: its length, and a tensor that holds at least it."""
        wanted = np.asarray(tokens, dtype=np.int32)
        best, best_key = 0, None
        for key, (known, _) in self._entries.items():
            common = _common_prefix(wanted, known)
            if common > best:
                best, best_key = common, key
        if best_key is None:
            return 0, None
        self._entries.move_to_end(best_key)
        return best, self._entries[best_key][1]

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether storing these tokens would add anything."""
        return self._max_bytes > 0 and self.lookup(tokens)[0] < len(tokens)

    def store(self, tokens: Sequence[int], exported: torch.Tensor) -> None:
        """Keep an exported slot. Larger than the whole budget: not kept."""
        size = exported.nbytes
        if size > self._max_bytes:
            return
        array = np.asarray(tokens, dtype=np.int32)
        for key, (known, _) in list(self._entries.items()):
            if len(known) <= len(array) and _common_prefix(array, known) == len(known):
                self._drop(key)
        while self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[self._next_key] = (array, exported)
        self._next_key += 1
        self._bytes += size

    def _drop(self, key: int) -> None:
        _, exported = self._entries.pop(key)
        self._bytes -= exported.nbytes


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length
