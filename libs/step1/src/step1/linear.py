"""Matrix products whose rows do not depend on each other, bit for bit.

BLAS picks its kernel, and with it the order of summation, by the number of rows, so a token
computed alone differs in its last bits from the same token in a batch. oneDNN with a weight packed
for `_KERNEL_ROWS` rows keeps one order on the CPUs known to us and is faster for few rows. Its
choice of kernel is not promised: each shape is tried before it is trusted, and where rows do differ
(or torch has no oneDNN) BLAS gets rows and columns padded to a count from which its choice no
longer changes.

Holds for float32 on a CPU with one intra-op thread. Elsewhere `Linear` is a plain product.
"""

from functools import cache, partial

import torch
from torch.nn import functional as F

_KERNEL_ROWS = 16
_TRIED_ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 256, 512)


class Linear:
    """`x @ weight.T` for one weight `[out, in]`, kept only in the form it computes with.

    The tensor given is read at the first product: fill it before, not after.
    """

    def __init__(self, weight: torch.Tensor, *, batch_invariant: bool = True) -> None:
        """Take over a weight.

        Args:
            weight: `[out, in]`.
            batch_invariant: Whether rows must be independent bit for bit (float32 on CPU only).
        """
        self._weight = weight
        self._invariant = (
            batch_invariant and weight.device.type == "cpu" and weight.dtype == torch.float32
        )
        self._outputs = weight.shape[0]
        self._ready = False
        self._packed = False

    @property
    def weight(self) -> torch.Tensor:
        """The weight as given, to be filled.

        Raises:
            RuntimeError: A product was computed already.
        """
        if self._ready:
            raise RuntimeError("this weight is in use; it can no longer be changed")
        return self._weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`[rows, in]`, contiguous, to `[rows, out]`."""
        if not self._ready:
            self._prepare()
        if self._packed:
            return _packed_product(x, self._weight)
        if not self._invariant:
            return F.linear(x, self._weight)
        rows = x.shape[0]
        return F.linear(_at_least(_KERNEL_ROWS, x), self._weight)[:rows, : self._outputs]

    def _prepare(self) -> None:
        if self._invariant:
            self._packed = _packing_is_invariant(*self._weight.shape)
            form = _pack if self._packed else partial(_at_least, _KERNEL_ROWS)
            self._weight = form(self._weight)
        self._ready = True


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(
        weight.contiguous(), _KERNEL_ROWS
    )
    return packed


def _packed_product(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return product


def _at_least(rows: int, x: torch.Tensor) -> torch.Tensor:
    missing = rows - x.shape[0]
    return x if missing <= 0 else F.pad(x, (0, 0, 0, missing))


@cache
def _packing_is_invariant(outputs: int, inputs: int) -> bool:
    """Whether oneDNN's sums for this shape are the same for every number of rows tried."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    packed = _pack(torch.randn(outputs, inputs, generator=generator))
    x = torch.randn(max(_TRIED_ROWS), inputs, generator=generator)
    whole = _packed_product(x, packed)
    return all(torch.equal(_packed_product(x[:rows], packed), whole[:rows]) for rows in _TRIED_ROWS)
