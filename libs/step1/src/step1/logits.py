"""Rules on the next token, as pure functions of the tokens so far. Every engine applies these.

`RepetitionFilter` bans one id (spec 3.6). A `TokenConstraint` tells the only ids that may come
next: `AllowedIds` the same at every step, `AudioGrammar` by the place in the five-token group. Not
here: temperature, top-k, top-p (sampling).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

IdRanges = tuple[tuple[int, int], ...]
"""Half-open ranges of token ids, ascending and disjoint."""

LINGUISTIC_CODES = 1024
SEMANTIC_CODES = 4096
GROUP = 5
"""Tokens in one 120 ms group: two linguistic, then three semantic."""


def token_at(column: int, ids: IdRanges) -> int:
    """The id that column `column` of logits over `ids` stands for."""
    for low, high in ids:
        if column < high - low:
            return low + column
        column -= high - low
    raise IndexError("the column lies behind the last range")


def column_of(token: int, ids: IdRanges) -> int | None:
    """The column of an id in logits over `ids`; None when it has none."""
    before = 0
    for low, high in ids:
        if low <= token < high:
            return before + token - low
        before += high - low
    return None


class TokenConstraint(Protocol):
    """Which ids may come next."""

    def allowed(self, generated: int) -> IdRanges:
        """Ids allowed after `generated` tokens of the reply."""
        ...


@dataclass(frozen=True, slots=True)
class AllowedIds:
    """The same ids at every step, e.g. text only for a model that answers in text."""

    ranges: IdRanges

    def allowed(self, generated: int) -> IdRanges:
        """See `TokenConstraint`; does not depend on `generated`."""
        return self.ranges


@dataclass(frozen=True, slots=True)
class AudioGrammar:
    """Two linguistic ids, three semantic ids, repeated; the end only between groups (spec 3.6 [D]).

    Text ids and the padding rows of the vocabulary can never come.

    Attributes:
        audio_offset: Vocabulary id of dual-code id 0.
        stop_id: The id that ends the reply.
        min_groups: Groups before the reply may end.
    """

    audio_offset: int = 65536
    stop_id: int = 3
    min_groups: int = 0

    def allowed(self, generated: int) -> IdRanges:
        """See `TokenConstraint`."""
        group, phase = divmod(generated, GROUP)
        semantic = self.audio_offset + LINGUISTIC_CODES
        if phase >= 2:
            return ((semantic, semantic + SEMANTIC_CODES),)
        linguistic = (self.audio_offset, semantic)
        if phase == 0 and group >= self.min_groups:
            stop = (self.stop_id, self.stop_id + 1)
            return (stop, linguistic) if self.stop_id < self.audio_offset else (linguistic, stop)
        return (linguistic,)


@dataclass(frozen=True, slots=True)
class RepetitionFilter:
    """Bans the newest id when it is frequent among the last `window`, prompt included (spec 3.6).

    Attributes:
        window: How many of the last ids are looked at. With fewer ids nothing is banned.
        max_share: Largest share of the window that the newest id may have.
    """

    window: int = 10
    max_share: float = 0.1

    def banned(self, tokens: Sequence[int]) -> int | None:
        """The id that may not come next, if any."""
        if len(tokens) < self.window:
            return None
        newest = tokens[-1]
        count = sum(token == newest for token in tokens[-self.window :])
        return newest if count / self.window > self.max_share else None

    def apply(
        self,
        tokens: Sequence[Sequence[int]],
        logits: torch.Tensor,
        ids: IdRanges | None = None,
    ) -> None:
        """Set the banned id of each row to -inf, in place.

        Args:
            tokens: The tokens so far of each row.
            logits: float `[rows, columns]`.
            ids: The ids that the columns stand for; None: the whole vocabulary.
        """
        for row, history in enumerate(tokens):
            banned = self.banned(history)
            if banned is not None and ids is not None:
                banned = column_of(banned, ids)
            if banned is not None:
                logits[row, banned] = float("-inf")
