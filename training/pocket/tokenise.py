"""Tokens of every utterance of a corpus, by the serving tokenizer, as it is shipped.

Writes `tokens.npz`: for each utterance the clean recording as a whole, at the reference's level;
for a question also one copy heard through a microphone and tokenised as a stream, as a live
conversation is. Dual-code ids, interleaved, as on the wire.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus
from numpy.typing import NDArray
from parley_core.tokens import interleave
from parley_tokenizer.linguistic import LinguisticSlots, LinguisticTokenizer
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.wave import set_peak
from speech import live

SLOTS = 24


class Tokenizer:
    """Both branches of a `Step-Audio-Tokenizer` folder."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.linguistic = LinguisticTokenizer.load(folder)
        self.semantic = SemanticTokenizer.load(folder)

    def encode(self, samples: NDArray[np.float32]) -> list[int]:
        """Dual-code ids of float32 [n] at 16 kHz, brought to the reference's level."""
        return self.recordings([samples])[0]

    def recordings(self, several: list[NDArray[np.float32]]) -> list[list[int]]:
        """The same for several recordings, whose linguistic branches run together."""
        waves = [set_peak(samples) for samples in several]
        pairs = zip(self._linguistic(waves), map(self.semantic.encode, waves), strict=True)
        return [interleave(linguistic, semantic) for linguistic, semantic in pairs]

    def streams(self, several: list[NDArray[np.float32]]) -> list[list[int]]:
        """Ids of recordings at the level they have, in blocks of 240 ms, as of live streams."""
        slots = SemanticSlots(self.semantic.model, SegmentPlan(), len(several), self._block)
        semantic = self._blocks(several, slots)
        pairs = zip(self._linguistic(several), semantic, strict=True)
        return [interleave(left, right) for left, right in pairs]

    @property
    def _block(self) -> int:
        return self.linguistic.block_samples

    def _linguistic(self, waves: list[NDArray[np.float32]]) -> list[list[int]]:
        return self._blocks(waves, LinguisticSlots(self.linguistic, len(waves)))

    def _blocks(
        self, waves: list[NDArray[np.float32]], slots: LinguisticSlots | SemanticSlots
    ) -> list[list[int]]:
        codes: list[list[int]] = [[] for _ in waves]
        for at in range(0, max(map(len, waves)) // self._block * self._block + 1, self._block):
            # An utterance ends with a part shorter than a block, maybe an empty one.
            rows = [row for row, wave in enumerate(waves) if at <= len(wave)]
            parts = [waves[row][at : at + self._block] for row in rows]
            for row, new in zip(rows, slots.step(rows, parts), strict=True):
                codes[row] += new
        return codes


_TOKENIZER: Tokenizer
_CORPUS: Corpus


def _open(folder: Path, corpus: Path) -> None:
    global _TOKENIZER, _CORPUS
    _TOKENIZER, _CORPUS = Tokenizer(folder), Corpus(corpus)


def _tokens(indices: list[int]) -> list[tuple[NDArray[np.int16], NDArray[np.int16]]]:
    waves = [_CORPUS.samples(i) for i in indices]
    clean = [np.array(ids, np.int16) for ids in _TOKENIZER.recordings(waves)]
    asked = [i for i in indices if _CORPUS.utterances[i].role == "question"]
    varied = {i: np.zeros(0, np.int16) for i in indices}
    if asked:
        heard = [live(waves[indices.index(i)], 9_000_000 + i) for i in asked]
        streams = _TOKENIZER.streams(heard)
        varied |= {i: np.array(ids, np.int16) for i, ids in zip(asked, streams, strict=True)}
    return [(ids, varied[i]) for i, ids in zip(indices, clean, strict=True)]


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
    parser.add_argument("--first", type=int, help="only so many, to try things out")
    options = parser.parse_args()
    count = options.first or len(Corpus(options.corpus))
    with ProcessPoolExecutor(
        options.workers, initializer=_open, initargs=(options.tokenizer, options.corpus)
    ) as pool:
        groups = [list(range(at, min(at + SLOTS, count))) for at in range(0, count, SLOTS)]
        pairs = []
        for part in pool.map(_tokens, groups):
            pairs += part
            if len(pairs) % (50 * SLOTS) == 0:
                print(f"{len(pairs)} of {count}", flush=True)
    stored = {}
    for name, column in zip(("clean", "varied"), zip(*pairs, strict=True), strict=True):
        stored[name] = np.concatenate(column)
        stored[f"{name}_ends"] = np.cumsum([len(each) for each in column])
    np.savez(options.out, **stored)


if __name__ == "__main__":
    main()
