"""Recipe of the linguistic tokenizer's encoder: the streaming SANM on phones and words.

Loss: cross-entropy of the phone in each half frame, and CTC over words. First in the blocks of
four frames that make tokens; then `--both-steps` steps that alternate with the blocks of ten that
the recogniser reads, so that one set of weights serves both. Only the encoder and the
normalisation are kept (`tokenizer.py` adds the 1024 rows and writes the checkpoint,
`recogniser.py` the ASR half).
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus
from features import fbank, half_frame_phones, stack
from loop import fit
from numpy.typing import NDArray
from sanm import LEFT, SanmEncoder
from speech import vary
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LAYERS, HEADS, HIDDEN = 192, 6, 4, 512
BATCH = 24


class LinguisticTrainer(nn.Module):
    """Encoder and its two heads."""

    def __init__(self, phones: int, words: int) -> None:
        super().__init__()
        self.encoder = SanmEncoder(WIDTH, LAYERS, HEADS, HIDDEN)
        self.phone_head = nn.Linear(WIDTH, 2 * phones)
        self.word_head = nn.Linear(WIDTH, words + 1)


class Batches:
    """Draws batches of similar length: features after CMVN with masking, phone ids, word ids."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.train = [i for i, spoken in enumerate(corpus.utterances) if not spoken.held_out]
        self.test = [i for i, spoken in enumerate(corpus.utterances) if spoken.held_out]
        self.train.sort(key=lambda i: corpus.utterances[i].end - corpus.utterances[i].start)
        self.phones = {
            name: i
            for i, name in enumerate(
                sorted({name for s in corpus.utterances for name, _ in s.phones})
            )
        }
        words = sorted({word for s in corpus.utterances for word in s.text.split()})
        self.words = {word: i + 1 for i, word in enumerate(words)}
        sample = random.Random(0).sample(self.train, 400)
        rows = np.concatenate([stack(fbank(corpus.samples(i))) for i in sample])
        self.shift, self.scale = -rows.mean(0), 1 / np.maximum(rows.std(0), 1e-3)

    def features(self, index: int, seed: int | None) -> np.ndarray:
        """[frames, 560] after CMVN; with a seed, of a varied copy."""
        samples = self.corpus.samples(index) if seed is None else self.varied(index, seed)
        return (stack(fbank(samples)) + self.shift) * self.scale

    def varied(self, index: int, seed: int) -> NDArray[np.float32]:
        """A varied copy, float32 [n] at 16 kHz."""
        return vary(self.corpus.samples(index), seed)

    def batch(
        self, indices: list[int], seed: int | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Features [b, t, 560], lengths [b], phones [b, t, 2] (-100: none), words, counts [b]."""
        rows = [
            self.features(i, None if seed is None else seed * 1000 + n)
            for n, i in enumerate(indices)
        ]
        longest = max(map(len, rows))
        features = torch.zeros(len(rows), longest, 560)
        phones = torch.full((len(rows), longest, 2), -100)
        words: list[int] = []
        counts: list[int] = []
        for n, (i, row) in enumerate(zip(indices, rows, strict=True)):
            spoken = self.corpus.utterances[i]
            features[n, : len(row)] = torch.from_numpy(row)
            phones[n, : len(row)] = torch.from_numpy(
                half_frame_phones(spoken.phones, len(row), self.phones)
            )
            ids = [self.words[word] for word in spoken.text.split()]
            words += ids
            counts.append(len(ids))
        lengths = torch.tensor([len(row) for row in rows])
        return features, lengths, phones, torch.tensor(words), torch.tensor(counts)

    def draw(self, step: int) -> list[int]:
        """Indices of a training batch: neighbours in length."""
        rng = random.Random(step)
        start = rng.randrange(0, len(self.train) - BATCH)
        return self.train[start : start + BATCH]


def hidden_rows(model: LinguisticTrainer, batch: tuple[Tensor, ...], recognition: bool) -> Tensor:
    """Encoder rows, one a frame, in the blocks of the tokenizer or of the recogniser."""
    features, lengths = batch[:2]
    if not recognition:
        return model.encoder(features, lengths)
    return model.encoder.recognition(features, lengths)[:, LEFT:]


def losses(
    model: LinguisticTrainer, batch: tuple[Tensor, ...], recognition: bool
) -> tuple[Tensor, dict[str, float]]:
    """The loss, and its parts."""
    _, lengths, phones, words, counts = batch
    hidden = hidden_rows(model, batch, recognition)
    logits = model.phone_head(hidden).unflatten(-1, (2, -1))
    phone_loss = F.cross_entropy(logits.flatten(0, 2), phones.flatten(), ignore_index=-100)
    log_words = model.word_head(hidden).log_softmax(-1).transpose(0, 1)
    word_loss = F.ctc_loss(log_words, words, lengths, counts, zero_infinity=True)
    with torch.no_grad():
        valid = phones >= 0
        accuracy = (logits.argmax(-1) == phones)[valid].float().mean().item()
    mode = " (recognition)" if recognition else ""
    figures = {"phone": phone_loss.item(), "accuracy": accuracy, "ctc": word_loss.item()}
    return phone_loss + word_loss, {f"{name}{mode}": value for name, value in figures.items()}


def main() -> None:
    """Trains both stages; goes on from the state files that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--both-steps", type=int, default=700)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    batches = Batches(Corpus(options.corpus))
    model = LinguisticTrainer(len(batches.phones), len(batches.words))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        return losses(model, batches.batch(batches.draw(step), seed=step), recognition=False)

    def both(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches.batch(batches.draw(step), seed=1_000_000 + step)
        return losses(model, batch, recognition=step % 2 == 1)

    fit(model, loss, steps=options.steps, rate=1e-3, state=options.out / "linguistic.state")
    fit(model, both, steps=options.both_steps, rate=6e-4, state=options.out / "encoder.state")
    for recognition in (False, True):
        print("recognition" if recognition else "tokens", evaluate(model, batches, recognition))


@torch.inference_mode()
def evaluate(model: LinguisticTrainer, batches: Batches, recognition: bool) -> dict[str, float]:
    """Held-out phone accuracy and greedy word error rate (CTC), on clean speech."""
    right = total = errors = spoken = 0
    for start in range(0, len(batches.test), BATCH):
        batch = batches.batch(batches.test[start : start + BATCH], None)
        _, lengths, phones, words, counts = batch
        hidden = hidden_rows(model, batch, recognition)
        guesses = model.phone_head(hidden).unflatten(-1, (2, -1)).argmax(-1)
        valid = phones >= 0
        right += int((guesses == phones)[valid].sum())
        total += int(valid.sum())
        best = model.word_head(hidden).argmax(-1)
        references = words.split(counts.tolist())
        for row, length, reference in zip(best, lengths, references, strict=True):
            heard = [w for w in torch.unique_consecutive(row[:length]).tolist() if w]
            errors += edit_distance(heard, reference.tolist())
            spoken += len(reference)
    return {"utterances": len(batches.test), "phone accuracy": right / total,
            "word error rate": errors / spoken}  # fmt: skip


def edit_distance(left: list[int], right: list[int]) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


if __name__ == "__main__":
    main()
