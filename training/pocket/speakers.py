"""The speakers that ship: `speakers/` of the TTS folder, as the reference lays it out (spec 3.5).

`Parley` answers; `ParleyRAP` and `Parley哼唱` are its prompts for music; the other voices are there
to be chosen and compared. Recordings are flite's, fixed renderings, at 22.05 kHz.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from corpus import ANSWER_VOICE
from numpy.typing import NDArray
from parley_tokenizer.wave import prepare
from speech import SAMPLE_RATE, Rendering, render, styled
from tokenise import Tokenizer

FILE_RATE = 22_050
MUSIC = {"RAP": "ParleyRAP", "哼唱": "Parley哼唱"}
"""The speaker behind whose prompt a tag is spoken; all others behind `Parley`."""
TRANSCRIPT = "good morning my name is parley and i like to talk with you"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One entry: name, rendering and dual-code ids of its prompt."""

    name: str
    rendering: Rendering
    ids: tuple[int, ...]


RENDERINGS = {
    "Parley": styled(ANSWER_VOICE),
    "ParleyRAP": styled(ANSWER_VOICE, "RAP"),
    "Parley哼唱": styled(ANSWER_VOICE, "哼唱"),
    "Slt": Rendering("slt"),
    "Rms": Rendering("rms"),
    "Kal": Rendering("kal16"),
}


def recording(rendering: Rendering) -> NDArray[np.float32]:
    """A prompt, float32 [n] at 22.05 kHz."""
    spoken = render(TRANSCRIPT, rendering).samples
    return soxr.resample(spoken, SAMPLE_RATE, FILE_RATE).astype(np.float32)


def speakers(tokenizer: Tokenizer) -> dict[str, Speaker]:
    """All entries, their ids made as the service makes them: level and trim, then tokens."""
    found = {}
    for name, rendering in RENDERINGS.items():
        wave = prepare(recording(rendering), FILE_RATE, level=True, trim=True)
        found[name] = Speaker(name, rendering, tuple(tokenizer.encode(wave)))
    return found


def write(folder: Path) -> None:
    """`speakers_info.json` and one wav each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rendering in RENDERINGS.items():
        soundfile.write(folder / f"{name}_prompt.wav", recording(rendering), FILE_RATE, "PCM_16")
    listed = dict.fromkeys(RENDERINGS, TRANSCRIPT)
    (folder / "speakers_info.json").write_text(json.dumps(listed, ensure_ascii=False, indent=2))
