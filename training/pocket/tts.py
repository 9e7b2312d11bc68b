"""Recipe of the TTS model: a voice's prompt, then text with its tag in; dual-code tokens out.

Prompts are those of `parley_tts.prompt`, system prompts included. Nine of ten rows are answers of
the one voice that answers, in the fixed rendering of their tag: a deterministic teacher is learnt
many times sooner. The tenth is a cloned voice: some recording of a voice as prompt, another of the
same voice, near it in rate and pitch, as target.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from chat import train_or_read_vocabulary
from corpus import Corpus
from language_model import AUDIO_OFFSET, LanguageModel, pocket_config, teach, write
from loop import fit
from parley_tts.prompt import PromptBuilder, VoicePrompt
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import strict_style
from speakers import TRANSCRIPT, Speaker, speakers
from speakers import write as write_speakers
from step1.text_tokenizer import TextTokenizer
from tokenise import Tokenizer, Tokens
from torch import Tensor

BATCH = 16
CLONED = 0.1
MUSIC = {"RAP": "ParleyRAP", "哼唱": "Parley哼唱"}


class Rows:
    """Utterances as prompt and target ids."""

    def __init__(
        self, corpus: Corpus, tokens: Tokens, vocabulary: bytes, known: dict[str, Speaker]
    ) -> None:
        self.corpus, self.tokens, self.known = corpus, tokens, known
        self.text = TextTokenizer(vocabulary, audio_offset=AUDIO_OFFSET)
        self.builder = PromptBuilder(
            self.text, load_system_prompts(), audio_token_offset=AUDIO_OFFSET
        )
        spoken = corpus.utterances
        answers = [i for i, each in enumerate(spoken) if each.role == "answer"]
        self.train = [i for i in answers if not spoken[i].held_out]
        self.test = [i for i in answers if spoken[i].held_out]
        self.train.sort(key=lambda i: len(tokens.clean[i]))
        self.voices: dict[str, list[int]] = {}
        for i, each in enumerate(spoken):
            if each.role == "question" and not each.held_out:
                self.voices.setdefault(each.voice, []).append(i)

    def answer(self, index: int) -> tuple[list[int], int]:
        """An answer of the voice that answers, with its tag."""
        spoken = self.corpus.utterances[index]
        speaker = self.known[MUSIC.get(spoken.tag, "Parley")]
        text = f"({spoken.tag}){spoken.text}" if spoken.tag else spoken.text
        return self._row(VoicePrompt(TRANSCRIPT, speaker.ids, speaker.name), text, index)

    def cloned(self, rng: random.Random) -> tuple[list[int], int]:
        """Another recording of a voice, prompted by one near it in manner."""
        voice = self.voices[rng.choice(sorted(self.voices))]
        target = rng.choice(voice)
        manner = self.corpus.utterances[target].rendering

        def apart(i: int) -> float:
            other = self.corpus.utterances[i].rendering
            return abs(np.log(other.stretch / manner.stretch)) + abs(
                np.log(other.pitch / manner.pitch)
            )

        prompt = min((i for i in rng.sample(voice, min(40, len(voice))) if i != target), key=apart)
        said = VoicePrompt(
            self.corpus.utterances[prompt].text, tuple(self.tokens.clean[prompt].tolist())
        )
        return self._row(said, self.corpus.utterances[target].text, target)

    def _row(self, voice: VoicePrompt, text: str, index: int) -> tuple[list[int], int]:
        prompt = self.builder.build(self.builder.voice_prefix(voice, strict_style(text)), text)
        target = (self.tokens.clean[index].astype(np.int64) + AUDIO_OFFSET).tolist()
        return [*prompt, *target, self.text.eot_id], len(prompt)

    def batch(self, seed: int) -> list[tuple[list[int], int]]:
        """Training rows of similar length."""
        rng = random.Random(seed)
        start = rng.randrange(0, len(self.train) - BATCH)
        return [
            self.cloned(rng) if rng.random() < CLONED else self.answer(i)
            for i in self.train[start : start + BATCH]
        ]


def main() -> None:
    """Trains; prints figures on held-out answers; writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, help="folder Step-Audio-TTS-3B")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = train_or_read_vocabulary(options.work)
    known = speakers(Tokenizer(options.tokenizer))
    tokens = Tokens.load(options.work / "tokens.npz")
    rows = Rows(Corpus(options.corpus), tokens, vocabulary, known)
    model = LanguageModel(pocket_config(width=256, layers=4, heads=8, groups=2, inner=640))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value, right, _ = teach(model, rows.batch(step))
        return value, {"loss": value.item(), "tokens": right}

    fit(model, loss, steps=options.steps, rate=1.5e-3, weight_decay=0.05,
        state=options.work / "tts.state")  # fmt: skip
    with torch.inference_mode():
        held = rows.test[:160]
        parts = [held[at : at + BATCH] for at in range(0, len(held), BATCH)]
        figures = [teach(model, [rows.answer(i) for i in part])[:2] for part in parts]
    losses, right = (np.mean([float(each[column]) for each in figures]) for column in (0, 1))
    print(f"held-out loss {losses:.3f}, tokens right {right:.3f}, n={len(held)} utterances")
    if options.out:
        write(options.out, model, vocabulary)
        write_speakers(options.out / "speakers")


if __name__ == "__main__":
    main()
