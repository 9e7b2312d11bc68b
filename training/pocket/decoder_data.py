"""What the decoder recipes train on: 22.05 kHz sound, mel as serving makes it, pitch.

flite speaks at 16 kHz, so the upper bands of the mel stay at the floor.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from corpus import Corpus
from numpy.typing import NDArray
from parley_tts.voices.mel import MelSettings, log_mel
from parley_vocoder.config import DecoderConfig, load_config
from pitch import fundamental
from speech import SAMPLE_RATE


def decoder_config() -> DecoderConfig:
    """`cosyvoice.yaml` beside this file, the one that ships."""
    return load_config(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Sounding:
    """One utterance for the decoder.

    `mel` float32 [frames, 80], `sound` int16 [frames * 256] at 22.05 kHz, `f0` float32 [frames] in
    Hz at the middle of each frame, 0 where unvoiced.
    """

    index: int
    mel: NDArray[np.float32]
    sound: NDArray[np.int16]
    f0: NDArray[np.float32]


def sound_and_mel(
    corpus: Corpus, index: int, config: DecoderConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Utterance `index` at 22.05 kHz, cut to whole frames, and its mel [frames, 80]."""
    mel = config.mel
    settings = MelSettings(
        mel.sampling_rate, mel.n_fft, mel.hop_size, mel.win_size, mel.num_mels, mel.fmin, mel.fmax
    )
    sound = soxr.resample(corpus.samples(index), SAMPLE_RATE, mel.sampling_rate).astype(np.float32)
    sound = sound[: len(sound) // mel.hop_size * mel.hop_size]
    return sound, log_mel(sound, settings)


def sounding(corpus: Corpus, index: int, config: DecoderConfig) -> Sounding:
    """Prepares utterance `index`."""
    sound, frames = sound_and_mel(corpus, index, config)
    hop = config.mel.hop_size
    middle = np.pad(sound[hop // 2 :], (0, hop // 2))
    f0 = fundamental(middle, config.mel.sampling_rate, hop, len(frames))
    whole = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
    return Sounding(index, frames, whole, f0)


def chosen(corpus: Corpus, answers: int, questions: int, *, held_out: bool) -> list[int]:
    """Utterances in the answering voice, and questions in all voices; held out or not."""
    picked = []
    for role, count in (("answer", answers), ("question", questions)):
        candidates = [
            i
            for i, spoken in enumerate(corpus.utterances)
            if spoken.role == role and spoken.held_out == held_out
        ]
        picked += random.Random(3).sample(candidates, min(count, len(candidates)))
    return picked
