"""Which piece of a text each audio token of its recording speaks, from flite's phone times.

A TTS model has to find in the text what comes next, and the tokens alone are a thin signal for
that: it learns to guess frequent words instead. `Follower` gives the places,
`language_model.Finger` makes a loss of them.
"""

from collections.abc import Sequence

import numpy as np
import sentencepiece
from corpus import ANSWER_VOICE, Spoken
from parley_core.tokens import GROUP_DURATION, GROUP_SIZE
from speech import PAUSE, Rendering, render

_SPACE = "▁"
Span = tuple[int, int]


class Follower:
    """Phones of single words, and the pieces of a vocabulary."""

    def __init__(self, vocabulary: bytes) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor()
        self._pieces.LoadFromSerializedProto(vocabulary)
        self._phones: dict[str, tuple[str, ...]] = {}

    def spans(
        self, spoken: Spoken, written: str, pieces: Sequence[int], tokens: int
    ) -> list[Span] | None:
        """For each audio token, begin and end of its word among the pieces of the written text.

        Args:
            spoken: what is said, with its phones.
            written: what the model reads, without a tag.
            pieces: its ids, those of a tag in front included.
            tokens: how many audio tokens, interleaved.

        Returns:
            Spans `[tokens]` as indices into `pieces`, `(0, 0)` behind the last word; None where the
            words that are written are not those that are said, as digits.
        """
        words = spoken.text.split()
        if [word.strip(".!?").lower() for word in written.split()] != words:
            return None
        places = self._places(pieces, len(words))
        ends = self._ends(spoken, words)
        group = GROUP_DURATION.total_seconds()
        middles = [(index // GROUP_SIZE + 0.5) * group for index in range(tokens)]
        at = np.searchsorted(ends, middles)
        return [places[word] if word < len(words) else (0, 0) for word in at]

    def _places(self, pieces: Sequence[int], words: int) -> list[Span]:
        names = [self._pieces.id_to_piece(piece) for piece in pieces]
        # A tag has no space in it or behind it.
        first = next((n + 1 for n, name in enumerate(names) if ")" in name), 0)
        begins = [first, *(n for n, name in enumerate(names) if name.startswith(_SPACE))]
        if len(begins) != words:
            raise ValueError(f"{names} are not {words} words")
        return list(zip(begins, [*begins[1:], len(pieces)], strict=True))

    def _ends(self, spoken: Spoken, words: Sequence[str]) -> list[float]:
        """Seconds at which each word ends, never falling."""
        alone = [(phone, n) for n, word in enumerate(words) for phone in self._alone(word)]
        said = [(name, end) for name, end in spoken.phones if name != PAUSE]
        ends = [0.0] * len(words)
        for (_, end), word in zip(said, _matched([name for name, _ in said], alone), strict=True):
            ends[word] = end
        return list(np.maximum.accumulate(ends))

    def _alone(self, word: str) -> tuple[str, ...]:
        if word not in self._phones:
            phones = render(word, Rendering(ANSWER_VOICE)).phones
            self._phones[word] = tuple(name for name, _ in phones if name != PAUSE)
        return self._phones[word]


def _matched(said: Sequence[str], alone: Sequence[tuple[str, int]]) -> list[int]:
    """The word of each phone that is said, by the fewest changes to the phones of words alone."""
    if list(said) == [name for name, _ in alone]:
        return [word for _, word in alone]
    cost = np.zeros((len(said) + 1, len(alone) + 1), np.int32)
    cost[:, 0], cost[0] = np.arange(len(said) + 1), np.arange(len(alone) + 1)
    for row, name in enumerate(said, 1):
        for column, (other, _) in enumerate(alone, 1):
            cost[row, column] = min(
                cost[row - 1, column - 1] + (name != other),
                cost[row - 1, column] + 1,
                cost[row, column - 1] + 1,
            )
    row, column, words = len(said), len(alone), []
    while row:
        if column and cost[row, column] == cost[row, column - 1] + 1:
            column -= 1
            continue
        words.append(alone[max(column, 1) - 1][1])
        together = column and cost[row, column] == (
            cost[row - 1, column - 1] + (said[row - 1] != alone[column - 1][0])
        )
        row, column = row - 1, column - (1 if together else 0)
    return words[::-1]
