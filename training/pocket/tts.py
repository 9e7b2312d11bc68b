"""Recipe of the TTS model: a voice's prompt, then text with its tag in; dual-code tokens out.

Prompts are those of `parley_tts.prompt`, system prompts included. Most rows are answers of the one
voice that answers, in the fixed rendering of their tag: a deterministic teacher is learnt many
times sooner. The others are cloned voices: some recording of a voice as prompt, another of the
same voice, near it in rate and pitch, as target.
"""

import argparse
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from chat import train_or_read_vocabulary
from corpus import Corpus, Spoken
from following import Follower, Span
from language_model import (
    AUDIO_OFFSET,
    CALM,
    LanguageModel,
    Row,
    begin_from,
    pocket_config,
    teach,
    write,
)
from loop import fit, place
from numpy.typing import NDArray
from parley_tts.prompt import PromptBuilder, VoicePrompt
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import strict_style
from speakers import MUSIC, TRANSCRIPT, Speaker, speakers
from speakers import write as write_speakers
from step1.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from tokenise import Tokenizer, Tokens
from torch import Tensor
from writing import written_form

BATCH = 48
CLONED = 0.06
COPIES = 4
"""Rows of the same text and tag; their codes are the same too, and facts are drawn very often."""
MISTAKEN = 0.1
"""Share of what the model has said that is replaced: it must go by the text, not by itself."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance and its dual-code ids, int16 [n]."""

    spoken: Spoken
    ids: NDArray[np.int16]


def recordings(corpus: Path, tokens: Path) -> list[Recording]:
    """All utterances of a corpus."""
    ids = Tokens.load(tokens).clean
    return [Recording(*pair) for pair in zip(Corpus(corpus).utterances, ids, strict=True)]


def _few_alike(listed: list[Recording]) -> list[Recording]:
    seen = Counter[tuple[str, str]]()
    kept = []
    for each in listed:
        same = each.spoken.text, each.spoken.tag
        seen[same] += 1
        if seen[same] <= COPIES:
            kept.append(each)
    return kept


def pocket_tts() -> LanguageModel:
    """The model of the size that ships, untrained."""
    return LanguageModel(pocket_config(width=256, layers=4, heads=8, groups=2, inner=640))


def trained(checkpoint: Path, tokenizer: Path) -> tuple[LanguageModel, "Rows"]:
    """A checkpoint that is done learning, and rows without utterances that make its prompts."""
    model = pocket_tts()
    begin_from(model, checkpoint)
    vocabulary = (checkpoint / TOKENIZER_FILE).read_bytes()
    return model.eval(), Rows([], vocabulary, speakers(Tokenizer(tokenizer)))


class Rows:
    """Utterances as prompt and target ids."""

    def __init__(
        self, listed: list[Recording], vocabulary: bytes, known: dict[str, Speaker]
    ) -> None:
        self.known = known
        self.follower = Follower(vocabulary)
        self.text = TextTokenizer(vocabulary, audio_offset=AUDIO_OFFSET)
        self.builder = PromptBuilder(
            self.text, load_system_prompts(), audio_token_offset=AUDIO_OFFSET
        )
        answers = [each for each in listed if each.spoken.role == "answer"]
        self.train = _few_alike([each for each in answers if not each.spoken.held_out])
        self.test = [each for each in answers if each.spoken.held_out]
        self.train.sort(key=lambda each: len(each.ids))
        self.voices: dict[str, list[Recording]] = {}
        for each in listed:
            if each.spoken.role == "question" and not each.spoken.held_out:
                self.voices.setdefault(each.spoken.voice, []).append(each)

    def answer(self, each: Recording, rng: random.Random | None = None) -> Row:
        """An answer of the voice that answers, with its tag; with `rng` written in some form."""
        text = written_form(each.spoken.text, rng, rng.choice(".!")) if rng else each.spoken.text
        voice, tag = self._served(each.spoken)
        return self._row(voice, tag, text, each, shared=True)

    def prompt(self, answer: Spoken) -> list[int]:
        """Ids behind which the voice that answers says an answer, as served."""
        voice, tag = self._served(answer)
        text = tag + answer.text
        return self.builder.build(self.builder.voice_prefix(voice, strict_style(text)), text)

    def _served(self, answer: Spoken) -> tuple[VoicePrompt, str]:
        speaker = self.known[MUSIC.get(answer.tag, "Parley")]
        tag = f"({answer.tag})" if answer.tag else ""
        return VoicePrompt(TRANSCRIPT, speaker.ids, speaker.name), tag

    def cloned(self, rng: random.Random) -> Row:
        """Another recording of a voice, prompted by one near it in manner."""
        voice = self.voices[rng.choice(sorted(self.voices))]
        target = rng.choice(voice)
        manner = target.spoken.rendering

        def apart(each: Recording) -> float:
            other = each.spoken.rendering
            return abs(np.log(other.stretch / manner.stretch)) + abs(
                np.log(other.pitch / manner.pitch)
            )

        others = rng.sample(voice, min(40, len(voice)))
        prompt = min((each for each in others if each is not target), key=apart)
        said = VoicePrompt(prompt.spoken.text, tuple(prompt.ids.tolist()))
        return self._row(said, "", target.spoken.text, target, shared=False)

    def _row(
        self, voice: VoicePrompt, tag: str, written: str, each: Recording, *, shared: bool
    ) -> Row:
        text = tag + written
        prefix = self.builder.voice_prefix(voice, strict_style(text))
        prompt = self.builder.build(prefix, text)
        target = (each.ids.astype(np.int64) + AUDIO_OFFSET).tolist()
        ids = [*prompt, *target, self.text.eot_id]
        follows = self._follows(prompt, text, written, each)
        return Row(ids, len(prompt), len(prefix) if shared else 0, follows=follows)

    def _follows(
        self, prompt: list[int], text: str, written: str, each: Recording
    ) -> tuple[Span, ...]:
        pieces = self.text.encode_text(f"\n{text}")[len(self.text.encode_text("\n")) :]
        ending = self.builder.build([], "")
        begin = len(prompt) - len(pieces) - (len(ending) - ending.index(self.text.eot_id))
        if prompt[begin : begin + len(pieces)] != pieces:
            raise ValueError(f"{text!r} is not where it should be in its prompt")
        spans = self.follower.spans(each.spoken, written, pieces, len(each.ids)) or ()
        return tuple((begin + a, begin + b) if b else (0, 0) for a, b in spans)

    def batch(self, seed: int) -> list[Row]:
        """Training rows of similar length, of which this process gets its part."""
        rank, processes = place()
        start = random.Random(seed).randrange(0, len(self.train) - BATCH)
        rng = random.Random(seed * processes + rank)
        return [
            self.cloned(rng) if rng.random() < CLONED else self.answer(each, rng)
            for each in self.train[start + rank : start + BATCH : processes]
        ]


def main() -> None:
    """Trains; prints figures on held-out answers; writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True, help="the corpus of answers alone")
    parser.add_argument(
        "--salads", type=Path, required=True, help="the corpus of words in no order"
    )
    parser.add_argument(
        "--more", type=Path, nargs="*", default=[],
        help="folders with corpus/ and tokens.npz, more answers or words in no order",
    )  # fmt: skip
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest of the schedule")
    parser.add_argument("--out", type=Path, help="folder Step-Audio-TTS-3B")
    parser.add_argument("--begin", type=Path, help="checkpoint folder to go on from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = train_or_read_vocabulary(options.work)
    known = speakers(Tokenizer(options.tokenizer))
    listed = recordings(options.corpus, options.work / "tokens.npz")
    listed += recordings(options.answers, options.work / "answer_tokens.npz")
    listed += recordings(options.salads, options.work / "salad_tokens.npz")
    for folder in options.more:
        listed += recordings(folder / "corpus", folder / "tokens.npz")
    rows = Rows(listed, vocabulary, known)
    model = pocket_tts()
    if options.begin:
        begin_from(model, options.begin)
    torch.manual_seed(place()[0])

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value, right, _ = teach(model, rows.batch(step), mistaken=MISTAKEN)
        return value, {"loss": value.item(), "tokens": right}

    fit(model, loss, steps=options.steps, rate=options.rate, weight_decay=0.05,
        state=options.work / "tts.state")  # fmt: skip
    if place()[0]:
        return
    with torch.inference_mode():
        held = rows.test[:160]
        parts = [held[at : at + BATCH] for at in range(0, len(held), BATCH)]
        figures = [teach(model, [rows.answer(each) for each in part])[:2] for part in parts]
    losses, right = (np.mean([float(each[column]) for each in figures]) for column in (0, 1))
    print(f"held-out loss {losses:.3f}, tokens right {right:.3f}, n={len(held)} utterances")
    if options.out:
        write(options.out, model, vocabulary, CALM)
        write_speakers(options.out / "speakers")


if __name__ == "__main__":
    main()
