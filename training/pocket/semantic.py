"""Recipe of the semantic tokenizer: Whisper-style encoder to 25 codes a second, 4096 by k-means.

Loss: cross-entropy of the phone in each 20 ms half of a code, pitch relative to the voice, and L1
on the log-mel of the clean utterance given the voice: so codes keep what is said and how, and
leave out who says it. Codes are points on a sphere of `CODE` dimensions; noise on them in training
stands in for the rounding to the nearest of 4096 that k-means adds afterwards. Structure: spec
1.4.
"""

import argparse
import math
import random
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus
from loop import fit
from parley_tokenizer.log_mel import MEL_BINS, log_mel, normalize
from pitch import fundamental
from speech import MEAN_F0, SAMPLE_RATE, VOICES, vary
from torch import Tensor, nn
from torch.nn import functional as F

STATE, HEADS, BLOCKS, CODE = 192, 6, 4, 24
FRAMES, HOP = 4, 640
BATCH = 24
ROUNDING = 0.06
LONGEST_WINDOW = 212
"""Mel frames that the serving tokenizer shows the network of a stream at once."""


class Attention(nn.Module):
    """Whisper's attention; the key has no bias."""

    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(state, state)
        self.key = nn.Linear(state, state, bias=False)
        self.value = nn.Linear(state, state)
        self.out = nn.Linear(state, state)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, codes, state]; mask [batch, codes] is true on codes that exist."""

        def split(rows: Tensor) -> Tensor:
            return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)),
            attn_mask=mask[:, None, None],
        )  # fmt: skip
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and GELU layers."""

    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(state, heads)
        self.attn_ln = nn.LayerNorm(state)
        self.mlp = nn.Sequential(
            nn.Linear(state, 4 * state), nn.GELU(), nn.Linear(4 * state, state)
        )
        self.mlp_ln = nn.LayerNorm(state)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, codes, state] -> the same."""
        x = x + self.attn(self.attn_ln(x), mask)
        return x + self.mlp(self.mlp_ln(x))


class SemanticEncoder(nn.Module):
    """Log-mel [batch, 128, frames] to points on the sphere [batch, ceil(frames / 4), 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MEL_BINS, STATE, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(STATE, STATE, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(STATE, HEADS) for _ in range(BLOCKS)])
        self.code = nn.Linear(STATE, CODE, bias=False)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Points and the mask of those that exist; `lengths` [batch] counts mel frames."""
        hidden = F.gelu(self.conv1(mel))
        half = -(-lengths // 2)
        hidden = hidden * (torch.arange(hidden.shape[2]) < half[:, None])[:, None]
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        mask = torch.arange(hidden.shape[1]) < (-(-half // 2))[:, None]
        hidden = hidden + positions(hidden.shape[1], STATE)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return F.normalize(self.code(hidden), dim=-1), mask


def positions(count: int, width: int) -> Tensor:
    """[count, width] sinusoids, sine half then cosine half, positions from 0."""
    half = width // 2
    scale = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(count)[:, None] * scale
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SemanticTrainer(nn.Module):
    """Encoder and the heads that say what codes must keep."""

    def __init__(self, phones: int) -> None:
        super().__init__()
        self.encoder = SemanticEncoder()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.phone_head = nn.Linear(CODE, 2 * phones)
        self.pitch_head = nn.Sequential(nn.Linear(CODE, 64), nn.GELU(), nn.Linear(64, 2))
        self.voices = nn.Embedding(len(VOICES), 16)
        self.mel_head = nn.Sequential(
            nn.Linear(CODE + 16, 384), nn.GELU(), nn.Linear(384, FRAMES * MEL_BINS)
        )

    def heads(self, points: Tensor, voices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Phone logits [b, n, 2, phones], pitch [b, n, 2], log-mel [b, n, 4, 128]."""
        known = torch.cat(
            [points * 5, self.voices(voices)[:, None].expand(-1, points.shape[1], -1)], dim=-1
        )
        return (
            self.phone_head(points * self.scale).unflatten(-1, (2, -1)),
            self.pitch_head(points * 5),
            self.mel_head(known).unflatten(-1, (FRAMES, MEL_BINS)),
        )


class Batches:
    """Draws batches of similar length."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        spoken = corpus.utterances
        self.train = [i for i, each in enumerate(spoken) if not each.held_out]
        self.test = [i for i, each in enumerate(spoken) if each.held_out]
        self.train.sort(key=lambda i: spoken[i].end - spoken[i].start)
        names = sorted({name for each in spoken for name, _ in each.phones})
        self.phones = {name: i for i, name in enumerate(names)}

    def batch(self, indices: list[int], seed: int | None) -> dict[str, Tensor]:
        """Padded tensors of some utterances.

        `heard` and `clean` [b, 128, t], `lengths` [b], `phones` [b, n, 2] (-100 in padding),
        `pitch` [b, n] in units of the natural logarithm relative to the voice (nan where
        unvoiced), `voices` [b]. With a seed the heard copy is varied and half of the batches are
        cut to a window of a stream.
        """
        rows = []
        for n, i in enumerate(indices):
            spoken, clean = self.corpus.utterances[i], self.corpus.samples(i)
            heard = clean if seed is None else vary(clean, seed * 1000 + n)
            target = _features(clean)
            count = -(-target.shape[1] // FRAMES)
            f0 = fundamental(clean, SAMPLE_RATE, HOP, count)
            relative = np.log(np.where(f0 > 0, f0, np.nan) / MEAN_F0[spoken.voice])
            rows.append((_features(heard), target, self._phones(spoken.phones, count), relative))
        begin, end = 0, max(row[0].shape[1] for row in rows)
        end = -(-end // FRAMES) * FRAMES
        if seed is not None and random.Random(seed).random() < 0.5:
            rng = random.Random(seed + 1)
            size = min(end, rng.randrange(60, LONGEST_WINDOW + 1) // FRAMES * FRAMES)
            begin = rng.randrange(0, min(row[0].shape[1] for row in rows) // 2) // FRAMES * FRAMES
            end = min(end, begin + size)
        codes = (end - begin) // FRAMES
        made = {
            "heard": torch.zeros(len(rows), MEL_BINS, end - begin),
            "clean": torch.zeros(len(rows), MEL_BINS, end - begin),
            "phones": torch.full((len(rows), codes, 2), -100),
            "pitch": torch.full((len(rows), codes), math.nan),
            "lengths": torch.tensor([min(row[0].shape[1], end) - begin for row in rows]),
            "voices": torch.tensor(
                [VOICES.index(self.corpus.utterances[i].voice) for i in indices]
            ),
        }
        first, last = begin // FRAMES, end // FRAMES
        for n, (heard, target, phones, relative) in enumerate(rows):
            for name, features in (("heard", heard), ("clean", target)):
                cut = torch.from_numpy(np.ascontiguousarray(features[:, begin:end]))
                made[name][n, :, : cut.shape[1]] = cut
            for name, values in (("phones", phones), ("pitch", relative)):
                made[name][n, : len(values[first:last])] = torch.from_numpy(values[first:last])
        return made

    def _phones(self, phones: tuple[tuple[str, float], ...], count: int) -> np.ndarray:
        ends = np.array([end for _, end in phones])
        ids = np.array([self.phones[name] for name, _ in phones])
        centres = 0.04 * np.arange(count)[:, None] + np.array([-0.01, 0.01])
        return ids[np.minimum(np.searchsorted(ends, centres), len(ids) - 1)]

    def draw(self, step: int) -> list[int]:
        """Indices of a training batch: neighbours in length."""
        start = random.Random(step).randrange(0, len(self.train) - BATCH)
        return self.train[start : start + BATCH]


def _features(samples: np.ndarray) -> np.ndarray:
    energies = log_mel(samples)
    return normalize(energies, float(energies.max()))


def losses(
    model: SemanticTrainer, batch: dict[str, Tensor], rounding: float
) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss, and its parts."""
    points, mask = model.encoder(batch["heard"], batch["lengths"])
    phone, pitch, mel = model.heads(points + rounding * torch.randn_like(points), batch["voices"])
    labels = batch["phones"]
    phone_loss = F.cross_entropy(phone.flatten(0, 2), labels.flatten(), ignore_index=-100)
    # Frames 4 j - 2 .. 4 j + 1 surround the centre of code j.
    target = F.pad(batch["clean"], (2, 0))[..., :-2].unflatten(-1, (-1, FRAMES)).permute(0, 2, 3, 1)
    mel_loss = (mel - target).abs()[mask].mean()
    voiced = ~batch["pitch"].isnan()
    pitch_loss = (pitch[..., 0][voiced] - batch["pitch"][voiced]).abs().mean()
    voicing = F.binary_cross_entropy_with_logits(pitch[..., 1][mask], voiced[mask].float())
    valid = labels >= 0
    figures = {
        "phone": phone_loss.item(),
        "accuracy": (phone.argmax(-1) == labels)[valid].float().mean().item(),
        "mel": mel_loss.item(),
        "pitch": pitch_loss.item(),
        "voicing": voicing.item(),
    }
    return phone_loss + 4 * mel_loss + 4 * pitch_loss + 0.3 * voicing, figures


@torch.inference_mode()
def evaluate(model: SemanticTrainer, batches: Batches) -> dict[str, float]:
    """Held-out figures without noise and rounding."""
    sums: dict[str, float] = {}
    starts = range(0, len(batches.test), BATCH)
    for start in starts:
        _, figures = losses(model, batches.batch(batches.test[start : start + BATCH], None), 0.0)
        for name, figure in figures.items():
            sums[name] = sums.get(name, 0.0) + figure / len(starts)
    return sums


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = Batches(Corpus(options.corpus))
    model = SemanticTrainer(len(batches.phones))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(step)
        return losses(model, batches.batch(batches.draw(step), seed=step), ROUNDING)

    fit(model, loss, steps=options.steps, rate=1e-3, state=options.out / "semantic.state")
    print(evaluate(model, batches))


if __name__ == "__main__":
    main()
