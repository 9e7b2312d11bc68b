"""Choosing the next token: greedy, or temperature, then top-k, then top-p (spec 3.6, 2.7).

Invariant: a row's token depends on its own logits, settings and random number only, never on the
rows beside it. Random numbers come from a generator that each request owns, one draw a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose the token of one row.

    Attributes:
        temperature: 0 is greedy.
        top_k: Keep the k most likely ids; 0 keeps all.
        top_p: Then keep the fewest most likely ids whose probabilities reach this sum.
        uniform: Random number in [0, 1).
    """

    temperature: float
    top_k: int
    top_p: float
    uniform: float


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose one column a row.

    Args:
        logits: float32 `[rows, columns]`; -inf is never chosen where anything else is finite.
        draws: One a row.

    Returns:
        One column a row.
    """
    alike: dict[int, list[int]] = {}
    for row, draw in enumerate(draws):
        alike.setdefault(1 if draw.temperature == 0 else draw.top_k, []).append(row)
    chosen = [0] * len(draws)
    for keep, rows in alike.items():
        selected = logits if len(rows) == logits.shape[0] else logits[rows]
        columns = selected.shape[1]
        values, places = torch.topk(selected, min(keep or columns, columns), dim=-1)
        values_np = values.cpu().numpy().astype(np.float64)
        places_np = places.cpu().numpy()
        for index, row in enumerate(rows):
            chosen[row] = int(places_np[index, _pick(values_np[index], draws[row])])
    return chosen


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
