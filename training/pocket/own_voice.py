"""Answers as the whole system speaks them: what the recogniser hears in an evaluation, and no more.

The TTS model says answers by itself, as served, and `vocoded.Voice` makes sound of its tokens. Kept
is what PocketSphinx understands rightly, as the paper's data engine keeps what its recogniser
does: a word that was left out would teach to hear what was not said. A corpus as `vocoded.py`
writes it; of the phone times begin and end of the sound alone are true.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus, Spoken
from decoder_data import chosen
from evaluation.sphinx import Sphinx
from language_model import AUDIO_OFFSET, CALM, LanguageModel
from numpy.typing import NDArray
from speech import PAUSE, SAMPLE_RATE
from torch import Tensor
from tts import trained
from vocoded import Voice, write

AT_ONCE = 50
LONGEST = 420
"""Tokens, ten seconds: whoever is not done by then goes on for ever."""
HEARD = 0.01
"""Of the loudest sample: what is louder is sound."""


class Speaker:
    """A TTS checkpoint that speaks answers by itself."""

    def __init__(self, checkpoint: Path, tokenizer: Path) -> None:
        self._model, self._rows = trained(checkpoint, tokenizer)

    def say(self, answers: list[Spoken], seed: int) -> list[list[int] | None]:
        """Dual-code ids of each answer; None for one that does not end."""
        prompts = [self._rows.prompt(each) for each in answers]
        return sampled(self._model, prompts, self._rows.text.eot_id, seed)


@torch.inference_mode()
def sampled(
    model: LanguageModel, prompts: list[list[int]], end: int, seed: int, longest: int = LONGEST
) -> list[list[int] | None]:
    """What a model says behind prompts, as served (temperature, best 50): dual-code ids.

    Positions are relative, so padding stands on the left, where nobody looks.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(each)) + each for each in prompts])
    padding = torch.tensor([[n < width - len(each) for n in range(width)] for each in prompts])
    allowed = torch.full((model.config.vocab_size,), -torch.inf)
    allowed[AUDIO_OFFSET:] = allowed[end] = 0.0
    generator = torch.Generator().manual_seed(seed)
    caches: list[tuple[Tensor, Tensor] | None] = [None] * len(model.model.layers)
    said: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    for at in range(longest):
        position = 0 if at == 0 else width + at - 1
        bias = model.bias(position, width + at).expand(len(prompts), -1, -1, -1)
        unseen = torch.nn.functional.pad(padding, (0, at))[:, None, None]
        # Padding sees itself: a row that sees nothing would be no number.
        bias = bias.masked_fill(unseen, -1e9)
        x = model.model.embed_tokens(ids)
        for n, layer in enumerate(model.model.layers):
            x, caches[n] = layer(x, bias, caches[n])
        best = (model.lm_head(model.model.norm(x[:, -1])) + allowed).topk(50)
        chances = (best.values / CALM["temperature"]).softmax(-1)
        ids = best.indices.gather(1, torch.multinomial(chances, 1, generator=generator))
        for n, token in enumerate(ids[:, 0].tolist()):
            ended[n] |= token == end
            if not ended[n]:
                said[n].append(token - AUDIO_OFFSET)
        if all(ended):
            break
    return [each if done else None for each, done in zip(said, ended, strict=True)]


def between(sound: NDArray[np.int16]) -> tuple[tuple[str, float], ...]:
    """Phones of int16 [n] at 16 kHz that tell where the sound begins and ends, in seconds."""
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > HEARD * np.abs(sound).max())
    begin, end = loud[0] / SAMPLE_RATE, (loud[-1] + 1) / SAMPLE_RATE
    return (PAUSE, begin), ("sound", end), (PAUSE, len(sound) / SAMPLE_RATE)


def understood(
    speaker: Speaker, voice: Voice, answers: list[Spoken]
) -> Iterator[tuple[Spoken, NDArray[np.int16]]]:
    """The answers that PocketSphinx takes for what they are, and their sound."""
    sphinx = Sphinx()
    for first in range(0, len(answers), AT_ONCE):
        part = answers[first : first + AT_ONCE]
        for n, (each, ids) in enumerate(zip(part, speaker.say(part, first), strict=True)):
            if not ids:
                continue
            sound = voice.say(ids, each.tag, first + n)
            if sphinx.understand(sound.astype(np.float32) / 32768).split() == each.text.split():
                yield replace(each, phones=between(sound)), sound
        print(f"said {first + len(part)} of {len(answers)}", flush=True)


def main() -> None:
    """Writes the corpus; answers that are held out stay out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, required=True, help="the corpus of answers alone")
    parser.add_argument("--tts", type=Path, required=True, help="folder Step-Audio-TTS-3B")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder Step-Audio-Tokenizer")
    parser.add_argument("--decoder", type=Path, required=True, help="folder CosyVoice-300M-25Hz")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(options.answers)
    answers = [corpus.utterances[n] for n in chosen(corpus, options.count, 0, held_out=False)]
    speaker = Speaker(options.tts, options.tokenizer)
    voice = Voice(options.tokenizer, options.decoder)
    # As many tokens at once, so that no short one waits for a long one.
    answers.sort(key=lambda each: each.end - each.start)
    kept = write(options.out, understood(speaker, voice, answers))
    print(f"kept {kept} of {len(answers)}")


if __name__ == "__main__":
    main()
