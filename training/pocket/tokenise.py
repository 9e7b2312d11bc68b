"""Tokens of every utterance of a corpus, by the serving tokenizer, as it is shipped.

Writes `tokens.npz`: for each utterance the clean recording as a whole, at the reference's level;
for a question also two copies through a microphone: one tokenised as a stream, as a live
conversation is, half of those cut to whole blocks, since a reply that is begun at a pause hears no
more; one as a whole recording, as `Ask` does. Dual-code ids, interleaved, as on the wire.
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


COLUMNS = ("clean", "streamed", "recorded")
_NOTHING = np.zeros(0, np.int16)


def _tokens(indices: list[int]) -> list[tuple[NDArray[np.int16], ...]]:
    waves = {i: _CORPUS.samples(i) for i in indices}
    asked = [i for i in indices if _CORPUS.utterances[i].role == "question"]
    columns = [dict(zip(indices, _TOKENIZER.recordings(list(waves.values())), strict=True))]
    # A corpus of answers alone has nothing that was asked.
    if asked:
        streamed = _TOKENIZER.streams([_streamed(waves[i], i) for i in asked])
        recorded = _TOKENIZER.recordings([live(waves[i], 11_000_000 + i) for i in asked])
        columns += [dict(zip(asked, ids, strict=True)) for ids in (streamed, recorded)]
    else:
        columns += [{}, {}]
    return [
        tuple(np.array(column[i], np.int16) if i in column else _NOTHING for column in columns)
        for i in indices
    ]


def _streamed(samples: NDArray[np.float32], i: int) -> NDArray[np.float32]:
    heard = live(samples, 9_000_000 + i)
    block = _TOKENIZER.linguistic.block_samples
    return heard[: len(heard) // block * block] if i % 2 else heard


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids int16 of every utterance, by column; the last two of questions only."""

    clean: list[NDArray[np.int16]]
    streamed: list[NDArray[np.int16]]
    recorded: list[NDArray[np.int16]]

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Reads `tokens.npz`."""
        with np.load(path) as stored:
            return cls(*(
                np.split(stored[name], stored[f"{name}_ends"][:-1]) for name in COLUMNS
            ))  # fmt: skip

    def save(self, path: Path) -> None:
        """Writes `tokens.npz`."""
        stored = {}
        for name in COLUMNS:
            column = getattr(self, name)
            stored[name] = np.concatenate(column)
            stored[f"{name}_ends"] = np.cumsum([len(each) for each in column])
        np.savez(path, **stored)


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
        rows = []
        for part in pool.map(_tokens, groups):
            rows += part
            if len(rows) % (50 * SLOTS) == 0:
                print(f"{len(rows)} of {count}", flush=True)
    Tokens(*map(list, zip(*rows, strict=True))).save(options.out)


if __name__ == "__main__":
    main()
