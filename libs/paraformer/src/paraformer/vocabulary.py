"""Tokens of a Paraformer checkpoint and how they join into words.

Contract: a token is a Chinese character, a word, or a piece of a word; a piece that ends in ``@@``
goes on in the next token. Words are told apart by a space, Chinese characters by nothing, and a run
of single Latin letters is an abbreviation in capitals, as the reference writes it. Special tokens
(``<...>``) never reach the text. Not for punctuation or numbers as digits: the model has none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paraformer.checkpoint import CheckpointError

_CONTINUES = "@@"
_SPECIAL_IDS = 3
"""Blank, start and end come first in every FunASR token list."""


@dataclass(frozen=True)
class Word:
    """A word or a Chinese character.

    Attributes:
        text: without spaces.
        first: index of its first token.
        last: index of its last token.
        complete: False where the next token may still change it.
    """

    text: str
    first: int
    last: int
    complete: bool


@dataclass(frozen=True)
class Vocabulary:
    """The token list; ids are its indices."""

    tokens: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads ``tokens.json`` (a list) or ``tokens.txt`` (one a line).

        Raises:
            CheckpointError: the file is missing, malformed or too short.
        """
        try:
            text = path.read_text("utf-8")
            tokens = json.loads(text) if path.suffix == ".json" else text.splitlines()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is missing or not a token list: {error}") from error
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise CheckpointError(f"{path}: expected a list of strings")
        if len(tokens) <= _SPECIAL_IDS:
            raise CheckpointError(f"{path}: {len(tokens)} tokens are too few")
        return cls(tuple(tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def is_special(self, token_id: int) -> bool:
        """Whether an id stands for no text: blank, start, end, unknown."""
        token = self.tokens[token_id]
        return token_id < _SPECIAL_IDS or (token.startswith("<") and token.endswith(">"))


def join_tokens(tokens: Sequence[str]) -> list[Word]:
    """Joins tokens into words."""
    words: list[Word] = []
    piece, first = "", 0
    for index, token in enumerate(tokens):
        piece += token.replace(_CONTINUES, "")
        if _CONTINUES in token:
            continue
        if piece:
            words.append(Word(piece, first, index, complete=True))
        piece, first = "", index + 1
    if piece:
        words.append(Word(piece, first, len(tokens) - 1, complete=False))
    return _abbreviate(words)


def spaced(words: Sequence[Word]) -> str:
    """Writes words as a line of text."""
    text = ""
    for before, word in zip([None, *words], words, strict=False):
        if before and not (_stands_alone(before.text) or _stands_alone(word.text)):
            text += " "
        text += word.text
    return text


def stable_words(words: Sequence[Word]) -> list[Word]:
    """The words that no later token can change."""
    return [word for word in words if word.complete]


def _abbreviate(words: list[Word]) -> list[Word]:
    """Joins runs of single Latin letters; a run at the very end may still grow."""
    joined: list[Word] = []
    run: list[Word] = []
    for word in [*words, None]:
        if word and word.complete and len(word.text) == 1 and _is_latin(word.text):
            run.append(word)
            continue
        if run:
            text = "".join(letter.text for letter in run)
            text = text.upper() if len(run) > 1 else text
            # A letter followed by an unfinished word may turn out to be followed by a letter.
            settled = word is not None and word.complete
            joined.append(Word(text, run[0].first, run[-1].last, settled))
            run = []
        if word:
            joined.append(word)
    return joined


def _is_latin(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _stands_alone(word: str) -> bool:
    """Chinese characters and digits take no space around them."""
    return all("\u4e00" <= letter <= "\u9fff" or letter.isdigit() for letter in word)
