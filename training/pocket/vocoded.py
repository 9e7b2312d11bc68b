"""Answers as they leave the serving decoder: what the recogniser hears of its own system's voice.

Takes the teacher's tokens of answers through flow and vocoder behind the prompt of their tag, in
windows as served, and keeps the sound at 16 kHz as a corpus (`samples.npy`, `utterances.json`; no
manifest, and phone times are those of the originals). Such speech has lost what codes and decoder
lose, and nothing of what the TTS model adds; the recogniser that has heard only flite takes the one
for the other.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import soxr
import torch
from corpus import Corpus, Spoken
from decoder_data import chosen
from numpy.typing import NDArray
from parley_tts.voices.features import PromptFeatureExtractor
from parley_vocoder.contract import VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import run_alone
from parley_vocoder.streaming import WindowedDecode
from parley_vocoder.windows import WindowSettings
from speakers import FILE_RATE, MUSIC, RENDERINGS, recording, speakers
from speech import SAMPLE_RATE
from tokenise import Tokenizer, Tokens

SPEAKER = "Parley"


class Voice:
    """The decoder behind the answering voice's prompts."""

    def __init__(self, tokenizer: Path, decoder: Path) -> None:
        self._settings = WindowSettings()
        self._decoder = Decoder.load(decoder)
        told = speakers(Tokenizer(tokenizer))
        extractor = PromptFeatureExtractor.from_folder(decoder)
        self._prompts = {}
        for name in (SPEAKER, *MUSIC.values()):
            prompt = extractor.extract(recording(RENDERINGS[name]), FILE_RATE)
            ids = np.array(told[name].ids, np.int64)
            self._prompts[name] = self._decoder.voice(
                VoiceConditioning(ids, prompt.mel, prompt.embedding),
                self._settings.max_prompt_frames,
            )

    def say(self, ids: list[int], tag: str, seed: int) -> NDArray[np.int16]:
        """Sound of dual-code ids [tokens] that were made for a tag, int16 [n] at 16 kHz."""
        prompt = self._prompts[MUSIC.get(tag, SPEAKER)]
        decode = WindowedDecode(self._decoder, prompt, SeededNoise(seed), self._settings)
        decode.push(ids)
        decode.end()
        sound = np.concatenate([each.samples for each in run_alone(self._decoder, decode)])
        sound = soxr.resample(sound, self._decoder.config.mel.sampling_rate, SAMPLE_RATE)
        return (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def write(folder: Path, said: Iterable[tuple[Spoken, NDArray[np.int16]]]) -> int:
    """Writes utterances and their sound, int16 [n] at 16 kHz, as a corpus; how many they are."""
    spoken, pieces, position = [], [], 0
    for each, sound in said:
        end = position + len(sound)
        spoken.append(asdict(replace(each, start=position, end=end)))
        pieces.append(sound)
        position = end
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "samples.npy", np.concatenate(pieces))
    (folder / "utterances.json").write_text(json.dumps(spoken, ensure_ascii=False))
    return len(spoken)


def main() -> None:
    """Writes the corpus; answers that are held out stay out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, required=True, help="the corpus of answers alone")
    parser.add_argument("--tokens", type=Path, required=True, help="their tokens")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder Step-Audio-Tokenizer")
    parser.add_argument("--decoder", type=Path, required=True, help="folder CosyVoice-300M-25Hz")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus, tokens = Corpus(options.answers), Tokens.load(options.tokens)
    voice = Voice(options.tokenizer, options.decoder)

    def vocoded() -> Iterator[tuple[Spoken, NDArray[np.int16]]]:
        for n, index in enumerate(chosen(corpus, options.count, 0, held_out=False)):
            said = corpus.utterances[index]
            yield said, voice.say(tokens.clean[index].tolist(), said.tag, index)
            if (n + 1) % 100 == 0:
                print(f"said {n + 1} of {options.count}", flush=True)

    write(options.out, vocoded())


if __name__ == "__main__":
    main()
