"""Square-root ALiBi, Step-1's position signal (spec 2.2): bias(q, k) = -slope * sqrt(q - k)."""

import torch


def alibi_slopes(heads: int) -> torch.Tensor:
    """Slopes of the query heads.

    With n the largest power of two that is at most `heads`: 2^(-8i/n) for i = 1..n, then
    2^(-4(2j-1)/n) for the heads beyond n.

    Args:
        heads: Number of query heads, at least 1.

    Returns:
        float32 `[heads]`.
    """
    if heads < 1:
        raise ValueError(f"heads must be at least 1, not {heads}")
    n = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / n) for i in range(1, n + 1)]
    slopes += [2.0 ** (-4.0 * (2 * j - 1) / n) for j in range(1, heads - n + 1)]
    return torch.tensor(slopes, dtype=torch.float32)


def sqrt_bias(slopes: torch.Tensor, query_positions: torch.Tensor, key_count: int) -> torch.Tensor:
    """Causal attention bias over keys 0..key_count-1, computed in float32.

    Args:
        slopes: float32 `[heads]`.
        query_positions: int64 `[...]`, position of each query.
        key_count: Number of keys; keys behind the query get -inf.

    Returns:
        float32 `[..., heads, key_count]`.
    """
    keys = torch.arange(key_count, device=slopes.device)
    distance = query_positions.unsqueeze(-1) - keys
    root = distance.clamp(min=0).to(torch.float32).sqrt_()
    bias = root.unsqueeze(-2) * -slopes.unsqueeze(-1)
    return bias.masked_fill_((distance < 0).unsqueeze(-2), float("-inf"))
