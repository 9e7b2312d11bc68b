"""Figures of the weights that are there, on questions and renderings made for this evaluation.

Questions come from another seed than the corpus; sums, follow-ups and the like are held out by
their hash, facts are new in rendering only. Recognition runs the serving modules. Every figure has
its n and a 95 % interval: bootstrap over utterances for word error rates, Wilson's for shares.
"""

import argparse
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from chat import Rows
from domain import COMBINATIONS, Exchange
from exchanges import draw
from language_model import LanguageModel, teach
from linguistic import edit_distance
from numpy.typing import NDArray
from paraformer.asr import Recognizer
from parley_tokenizer.linguistic import ENCODER_FOLDER
from safetensors.torch import load_file
from speech import VOICES, Rendering, render, vary
from step1.config import Step1Config
from step1.text_tokenizer import TOKENIZER_FILE
from tokenise import Tokenizer


@dataclass(frozen=True, slots=True)
class Asked:
    """A spoken question: float32 [n] at 16 kHz, clean and through a microphone."""

    exchange: Exchange
    voice: str
    clean: NDArray[np.float32]
    heard: NDArray[np.float32]


def questions(count: int, seed: int) -> list[Asked]:
    """`count` questions that no recipe has seen in this rendering, combinations not at all."""
    rng = random.Random(seed)
    asked: list[Asked] = []
    for exchange in draw(seed):
        if exchange.kind in COMBINATIONS and not exchange.held_out:
            continue
        voice = rng.choice(VOICES)
        manner = Rendering(
            voice, rng.uniform(0.85, 1.25), rng.uniform(0.88, 1.12), rng.uniform(0.7, 1.4)
        )
        clean = render(exchange.question, manner).samples
        asked.append(Asked(exchange, voice, clean, vary(clean, seed * 7919 + len(asked))))
        if len(asked) == count:
            break
    return asked


def rate(errors: list[int], words: list[int]) -> str:
    """A word error rate with its bootstrap interval."""
    wrong, spoken = np.array(errors), np.array(words)
    chosen = np.random.default_rng(0).integers(0, len(wrong), (2000, len(wrong)))
    low, high = np.quantile(wrong[chosen].sum(1) / spoken[chosen].sum(1), (0.025, 0.975))
    return (
        f"{100 * wrong.sum() / spoken.sum():.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
        f"n={len(wrong)} utterances, {spoken.sum()} words"
    )


def share(right: int, count: int) -> str:
    """A share with its Wilson interval."""
    p, z = right / count, 1.96
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2))
    return (
        f"{100 * p:.1f} % ({100 * (middle - half):.1f} to {100 * (middle + half):.1f}), n={count}"
    )


def recognition(asked: list[Asked], folder: Path) -> None:
    """Word error rates of the recogniser that asr-context runs."""
    recogniser = Recognizer.load(folder)

    def errors(wave: NDArray[np.float32], text: list[str]) -> int:
        # The recogniser writes letters that are spelled as one word in capitals.
        heard = [
            part
            for word in recogniser.transcribe(wave).text.split()
            for part in (word.lower() if word.isupper() and len(word) > 1 else [word])
        ]
        numbers = {word: n for n, word in enumerate({*heard, *text})}
        return edit_distance([numbers[w] for w in heard], [numbers[w] for w in text])

    pick: dict[str, Callable[[Asked], NDArray[np.float32]]] = {
        "clean": lambda each: each.clean,
        "microphone": lambda each: each.heard,
    }
    for name, wave_of in pick.items():
        wrong = [errors(wave_of(each), each.exchange.question.split()) for each in asked]
        words = [len(each.exchange.question.split()) for each in asked]
        print(f"recognition, {name}: {rate(wrong, words)}")
        for voice in VOICES:
            rows = [n for n, each in enumerate(asked) if each.voice == voice]
            print(f"    {voice:6} {rate([wrong[n] for n in rows], [words[n] for n in rows])}")


@torch.inference_mode()
def answers(asked: list[Asked], folder: Path, tokenizer: Tokenizer) -> None:
    """Exact answers and calls to spoken questions, tokenised as streams, decoded greedily."""
    model = LanguageModel(Step1Config.load(folder)).eval()
    stored = load_file(folder / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in stored.items()})
    rows, rng = Rows((folder / TOKENIZER_FILE).read_bytes()), random.Random(0)
    right: dict[str, list[bool]] = {}
    for each in asked:
        (audio,) = tokenizer.streams([each.heard])
        exact = teach(model, [rows.row(each.exchange, rng, tuple(audio))])[2] == 1
        right.setdefault(each.exchange.kind, []).append(exact)
    calls = right.pop("tool_call", [])
    spoken = [exact for listed in right.values() for exact in listed]
    print(f"right answers from speech: {share(sum(spoken), len(spoken))}")
    if calls:
        print(f"right function calls: {share(sum(calls), len(calls))}")
    for kind, listed in sorted(right.items()):
        print(f"    {kind:12} {share(sum(listed), len(listed))}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="weights/pocket")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.weights / "Step-Audio-Tokenizer"
    asked = questions(options.questions, options.seed)
    recognition(asked, folder / ENCODER_FOLDER)
    chat = options.weights / "Step-Audio-Chat"
    if (chat / "model.safetensors").is_file():
        answers(asked, chat, Tokenizer(folder))
    else:
        print("right answers from speech: no chat weights yet")


if __name__ == "__main__":
    main()
