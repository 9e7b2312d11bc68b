"""Last stage of the recogniser: what is no speech has no words.

Trained on speech alone, it wrote a word down for every hum and cough, and a conversation took each
of them for an interruption that was meant. Only the CIF predictor moves: towards no tokens for
sounds without words, and towards the weights it had for speech, so that the words stay. Encoder and
decoder keep their bytes.
"""

import argparse
import copy
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from corpus import Corpus
from features import fbank, stack
from linguistic import LEFT
from loop import fit
from numpy.typing import NDArray
from paraformer.asr import Recognizer
from parley_tokenizer.linguistic import ENCODER_FOLDER
from recogniser import Heard, RecogniserTrainer, _cmvn, begin_from, evaluate, frozen_encoder
from speech import SAMPLE_RATE
from torch import Tensor, nn

SOUNDS, SPEECH = 16, 24
KEPT = 5
"""How much more it matters that speech keeps its words than that sounds have none."""


def sound(seed: int) -> NDArray[np.float32]:
    """A sound without words, float32 `[n]` at 16 kHz: hum, held vowel, cough, hiss, click, tone."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    length = rng.uniform(0.15, 0.8)
    t = np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE
    edge = np.minimum(1, np.minimum(t, t[::-1]) / rng.uniform(0.01, 0.08))
    kind = rng.choice(("hum", "vowel", "vowel", "cough", "hiss", "click", "tone", "floor"))
    if kind in ("hum", "vowel"):
        wave = _voiced(t, rng, closed=kind == "hum") * edge
    elif kind == "cough":
        decay = np.exp(-t / rng.uniform(0.05, 0.2))
        wave = (noise.normal(0, 0.5, len(t)) + _voiced(t, rng, closed=False)) * decay
    elif kind == "hiss":
        wave = np.convolve(noise.normal(0, 0.5, len(t)), [1, -rng.random()], "same") * edge
    elif kind == "click":
        wave = noise.normal(0, 1, len(t)) * np.exp(-t / 0.004)
    elif kind == "tone":
        wave = np.sin(2 * np.pi * rng.uniform(100, 3000) * t) * edge
    else:
        wave = np.zeros(len(t))
    around = (int(rng.uniform(0.1, 0.5) * SAMPLE_RATE), int(rng.uniform(0.1, 0.6) * SAMPLE_RATE))
    wave = np.pad(wave / max(float(np.abs(wave).max()), 1e-6) * 10 ** rng.uniform(-2, -0.1), around)
    if rng.random() < 0.6:
        wave = wave + noise.normal(0, 10 ** rng.uniform(-4, -2), len(wave))
    return np.clip(wave, -1, 1).astype(np.float32)


def _voiced(t: NDArray[np.float64], rng: random.Random, *, closed: bool) -> NDArray[np.float64]:
    """Harmonics under formants that stand still; a hum has its mouth closed."""
    pitch = rng.uniform(80, 280) * (1 + rng.uniform(-0.2, 0.2) * t)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    bands = ((200, 350), (900, 1300), (2000, 2600)) if closed else (
        (280, 850), (800, 2400), (2300, 3200))  # fmt: skip
    formants = [(rng.uniform(*band), rng.uniform(60, 250)) for band in bands]
    wave = np.zeros(len(t))
    for number in range(1, 30):
        gain = sum(1 / (1 + ((number * pitch - at) / width) ** 2) for at, width in formants)
        wave += gain / np.sqrt(number) * np.sin(2 * np.pi * number * phase)
    return wave / max(float(np.abs(wave).max()), 1e-6)


def silent_share(folder: Path, count: int, seed: int) -> float:
    """Share of fresh sounds for which the serving recogniser writes nothing."""
    recogniser = Recognizer.load(folder)
    heard = [recogniser.transcribe(sound(seed + number)).text for number in range(count)]
    return sum(not text for text in heard) / count


def main() -> None:
    """Trains, writes and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder Step-Audio-Tokenizer")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument(
        "--vocoded", type=Path, nargs="*", default=[], help="corpora of vocoded.py, speech as well"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = options.tokenizer / ENCODER_FOLDER
    stored = torch.load(folder / "model.pt", weights_only=True)
    words = stored["decoder.output_layer.weight"].shape[0]
    model = RecogniserTrainer(words)
    begin_from(model, folder)
    model.decoder.requires_grad_(False)
    before = copy.deepcopy(model).eval()
    encoder = frozen_encoder(folder)
    sources = [Heard(Corpus(each)) for each in (options.corpus, *options.vocoded)]
    cmvn = SimpleNamespace(**_cmvn(folder))
    for each in sources:
        each.shift, each.scale = cmvn.shift, cmvn.scale

    def sounds(step: int) -> tuple[Tensor, Tensor]:
        rows = [
            torch.from_numpy((stack(fbank(sound(step * SOUNDS + n))) + cmvn.shift) * cmvn.scale)
            for n in range(SOUNDS)
        ]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True).float(), torch.tensor(
            [len(row) for row in rows]
        )

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        batches = sources[step % len(sources)]
        spoken, spoken_lengths, _, _, counts = batches.batch(batches.draw(step)[:SPEECH], seed=step)
        silent, silent_lengths = sounds(step)
        with torch.no_grad():
            hidden = encoder.recognition(spoken, spoken_lengths)
            kept = before.weights(hidden, spoken_lengths + LEFT)
            other = encoder.recognition(silent, silent_lengths)
        weights = model.weights(hidden, spoken_lengths + LEFT)
        changed = (weights - kept).abs().sum(1).mean()
        miscounted = (weights.sum(1) - counts).abs().mean()
        heard = model.weights(other, silent_lengths + LEFT).sum(1).mean()
        figures = {"heard": heard.item(), "changed": changed.item(), "count": miscounted.item()}
        return heard + KEPT * (changed + miscounted), figures

    fit(model, loss, steps=options.steps, rate=1e-3, warm_up=10, weight_decay=0.0,
        state=options.work / "nonspeech.state")  # fmt: skip
    half = {name: value.half() for name, value in model.state_dict().items()}
    new = {name: value for name, value in half.items() if name.startswith("predictor.")}
    made = folder / "model.pt.new"
    torch.save(stored | new, made)
    made.rename(folder / "model.pt")
    print(f"nothing written for {silent_share(folder, 100, 10_000_000):.2f} of 100 fresh sounds")
    for varied in (False, True):
        figures = evaluate(folder, sources[0].corpus, 200, varied=varied)
        print("varied" if varied else "clean", figures, flush=True)


if __name__ == "__main__":
    main()
