"""Tokens of every utterance of a corpus, by the serving tokenizer, as it is shipped.

Writes `tokens.npz`: for each utterance the clean recording as a whole, at the reference's level; for a
question also one copy heard through a microphone and tokenised as a stream, as a live conversation
is. Dual-code ids, interleaved, as on the wire.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from corpus import Corpus
from parley_core.tokens import interleave
from parley_tokenizer.linguistic import LinguisticTokenizer
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.wave import set_peak
from speech import vary


class Tokenizer:
    """Both branches of a `Step-Audio-Tokenizer` folder."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.linguistic = LinguisticTokenizer.load(folder)
        self.semantic = SemanticTokenizer.load(folder)

    def encode(self, samples: NDArray[np.float32]) -> list[int]:
        """Dual-code ids of float32 [n] at 16 kHz, brought to the reference's level."""
        wave = set_peak(samples)
        return interleave(self.linguistic.encode(wave), self.semantic.encode(wave))

    def encode_stream(self, samples: NDArray[np.float32]) -> list[int]:
        """The same, at the level it has, in blocks of 240 ms."""
        block = self.linguistic.block_samples
        slots = SemanticSlots(self.semantic.model, SegmentPlan(), 1, block)
        semantic: list[int] = []
        for at in range(0, len(samples) // block * block + 1, block):
            semantic += slots.step([0], [samples[at : at + block]])[0]
        return interleave(self.linguistic.encode(samples), semantic)


_TOKENIZER: Tokenizer
_CORPUS: Corpus


def _open(folder: Path, corpus: Path) -> None:
    global _TOKENIZER, _CORPUS
    _TOKENIZER, _CORPUS = Tokenizer(folder), Corpus(corpus)


def _tokens(index: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    samples = _CORPUS.samples(index)
    clean = np.array(_TOKENIZER.encode(samples), np.int16)
    if _CORPUS.utterances[index].role == "answer":
        return clean, np.zeros(0, np.int16)
    return clean, np.array(_TOKENIZER.encode_stream(vary(samples, 9_000_000 + index)), np.int16)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids int16 of every utterance: clean, and (for questions) through a microphone."""

    clean: list[NDArray[np.int16]]
    varied: list[NDArray[np.int16]]

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Reads `tokens.npz`."""
        with np.load(path) as stored:
            return cls(*(
                np.split(stored[name], stored[f"{name}_ends"][:-1]) for name in ("clean", "varied")
            ))  # fmt: skip


def main() -> None:
    """Tokenises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count = len(Corpus(options.corpus))
    with ProcessPoolExecutor(
        options.workers, initializer=_open, initargs=(options.tokenizer, options.corpus)
    ) as pool:
        pairs = list(pool.map(_tokens, range(count), chunksize=64))
    stored = {}
    for name, column in zip(("clean", "varied"), zip(*pairs, strict=True), strict=True):
        stored[name] = np.concatenate(column)
        stored[f"{name}_ends"] = np.cumsum([len(each) for each in column])
    np.savez(options.out, **stored)


if __name__ == "__main__":
    main()
