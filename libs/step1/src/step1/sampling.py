"""Choosing the next token: greedy, or temperature, then top-k, then top-p (spec 3.6, 2.7).

Invariant: a row's token depends on its own logits, settings and random number only, never on the
rows beside it. Random numbers come from a generator that each request owns, one draw a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from step1.logits import IdRanges


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose the token of one row.

    Attributes:
        temperature: 0 is greedy.
        top_k: Keep the k most likely ids; 0 keeps all.
        top_p: Then keep the fewest most likely ids whose probabilities reach this sum.
        uniform: Random number in [0, 1).
        allowed: The only ids that may be chosen; None allows all.
    """

    temperature: float
    top_k: int
    top_p: float
    uniform: float
    allowed: IdRanges | None = None


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose one token a row.

    Args:
        logits: float32 `[rows, vocab_size]`; -inf is never chosen where anything else is allowed.
        draws: One a row.

    Returns:
        One id a row.
    """
    alike: dict[tuple[IdRanges | None, int], list[int]] = {}
    for row, draw in enumerate(draws):
        keep = 1 if draw.temperature == 0 else draw.top_k
        alike.setdefault((draw.allowed, keep), []).append(row)
    chosen = [0] * len(draws)
    for (allowed, keep), rows in alike.items():
        candidates, ranges = _candidates(logits, rows, allowed)
        top = min(keep or candidates.shape[1], candidates.shape[1])
        values, places = torch.topk(candidates, top, dim=-1)
        values_np = values.cpu().numpy().astype(np.float64)
        places_np = places.cpu().numpy()
        for index, row in enumerate(rows):
            place = places_np[index, _pick(values_np[index], draws[row])]
            chosen[row] = _token_at(int(place), ranges)
    return chosen


def _candidates(
    logits: torch.Tensor, rows: list[int], allowed: IdRanges | None
) -> tuple[torch.Tensor, IdRanges]:
    """The columns that may be chosen: sorting a thousand of 74752 is a hundred times cheaper."""
    selected = logits if len(rows) == logits.shape[0] else logits[rows]
    if allowed is None:
        return selected, ((0, logits.shape[1]),)
    parts = [selected[:, low:high] for low, high in allowed]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), allowed


def _token_at(place: int, ranges: IdRanges) -> int:
    for low, high in ranges:
        if place < high - low:
            return low + place
        place -= high - low
    raise IndexError("place lies behind the last range")


def _pick(values: np.ndarray, draw: Draw) -> int:
    """Index into descending `values` float64 `[candidates]`."""
    if draw.temperature == 0:
        return 0
    weights = np.exp((values - values[0]) / draw.temperature)
    weights /= weights.sum()
    cumulative = np.cumsum(weights)
    if draw.top_p < 1:
        kept = int(np.searchsorted(cumulative, draw.top_p, side="left")) + 1
        cumulative = cumulative[:kept]
    place = np.searchsorted(cumulative, draw.uniform * cumulative[-1], side="right")
    return min(int(place), len(cumulative) - 1)
