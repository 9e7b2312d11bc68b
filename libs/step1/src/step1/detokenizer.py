"""Ids to text as they come, never half a character: bytes wait until their character is whole."""

import codecs
from collections.abc import Iterable

from step1.text_tokenizer import TextTokenizer


class Detokenizer:
    """The text of one reply. Added tokens and audio tokens add nothing to it."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that became whole with these tokens."""
        return "".join(
            self._decoder.decode(self._tokenizer.token_bytes(token)) for token in token_ids
        )

    def flush(self) -> str:
        """The rest at the end of the reply: U+FFFD where a character was never finished."""
        return self._decoder.decode(b"", final=True)
