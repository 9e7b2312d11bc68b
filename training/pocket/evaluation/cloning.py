"""Cloned voices: is what they say nearest to the voice that was cloned, and can it be understood?

Each prompt is 3 to 6 s of a voice or manner that answers in no training row. Nearest is judged
twice, against the mean of recordings of every voice, none of which is the prompt: by the speaker
model of the weights, and by mean pitch and cepstrum, which know nothing of any model.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from exchanges import phrase
from numpy.typing import NDArray
from parley_client import Client
from parley_tts.voices.features import PromptFeatureExtractor
from speech import VOICES, Rendering, render

from evaluation.asking import Progress, recording
from evaluation.figures import Spelling
from evaluation.sound import RATE, timbre
from evaluation.speaking import say, texts
from evaluation.sphinx import Sphinx

_KNOWN_PER_VOICE = 8
_CONSENT = "synthetic speech of an evaluation, no person"
_TEXTS_PER_PROMPT = 2


@dataclass(frozen=True, slots=True)
class Cloned:
    """One sentence of one cloned voice; `taught` is PocketSphinx's spelling of the voice's own."""

    voice: str
    nearest_by_model: str
    nearest_by_sound: str
    spelling: Spelling
    taught: Spelling


async def cloned(
    client: Client, weights: Path, prompts: int, seed: int, sphinx: Sphinx, progress: Progress
) -> list[Cloned]:
    """Clones `prompts` voices in turn and judges two sentences of each."""
    rng = random.Random(seed)
    model = PromptFeatureExtractor.from_folder(weights / "CosyVoice-300M-25Hz")
    judges = _Judges(model, rng)
    said = texts(prompts * _TEXTS_PER_PROMPT, seed + 17)
    found = []
    for number in range(prompts):
        voice = VOICES[number % len(VOICES)]
        text, wave = _prompt(voice, rng)
        name = f"eval-{seed}-{number}"
        await client.clone_voice(name, recording(wave), prompt_text=text, consent=_CONSENT)
        try:
            for each in said[number * _TEXTS_PER_PROMPT :][:_TEXTS_PER_PROMPT]:
                sound = await say(client, each.answer, seed + number, voice=name)
                own = render(each.answer, Rendering(voice)).samples
                spellings = [
                    Spelling.of(each.answer, sphinx.understand(wave)) for wave in (sound, own)
                ]
                found.append(Cloned(voice, *judges.nearest(sound), *spellings))
        finally:
            await client.delete_voice(name)
        progress("cloning", number + 1, prompts)
    return found


class _Judges:
    """Means of recordings of every voice, as the speaker model and as plain sound have them."""

    def __init__(self, model: PromptFeatureExtractor, rng: random.Random) -> None:
        self._model = model
        recordings = {
            voice: [
                render(phrase(rng), _manner(voice, rng)).samples for _ in range(_KNOWN_PER_VOICE)
            ]
            for voice in VOICES
        }
        self._vectors = {
            voice: np.mean([self._vector(each) for each in waves], axis=0)
            for voice, waves in recordings.items()
        }
        sounds = {
            voice: np.stack([timbre(each) for each in waves]) for voice, waves in recordings.items()
        }
        # Spread within a voice, so that no coefficient counts for its unit.
        self._spread = np.mean([each.std(0) for each in sounds.values()], axis=0) + 1e-6
        self._sounds = {voice: each.mean(0) for voice, each in sounds.items()}

    def nearest(self, wave: NDArray[np.float32]) -> tuple[str, str]:
        """Names of the voices that a sound is nearest to."""
        vector, sound = self._vector(wave), timbre(wave)
        by_model = max(self._vectors, key=lambda voice: float(vector @ self._vectors[voice]))
        by_sound = min(
            self._sounds,
            key=lambda voice: float((((sound - self._sounds[voice]) / self._spread) ** 2).sum()),
        )
        return by_model, by_sound

    def _vector(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        vector = self._model.speaker_embedding(wave, RATE)
        return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _manner(voice: str, rng: random.Random) -> Rendering:
    return Rendering(voice, rng.uniform(0.9, 1.2), rng.uniform(0.92, 1.08), rng.uniform(0.8, 1.3))


def _prompt(voice: str, rng: random.Random) -> tuple[str, NDArray[np.float32]]:
    """Some made-up sentences that together last 3 to 6 s."""
    while True:
        text = f"{phrase(rng)} {phrase(rng)}"
        wave = render(text, _manner(voice, rng)).samples
        if 3 * RATE <= len(wave) <= 6 * RATE:
            return text, wave
