"""Speech for the pocket weights, from Debian's flite.

`render` gives one utterance as float32 mono at 16 kHz with its phones and their exact end times
(`flite -psdur`). The same `Rendering` and text give the same samples. `vary` adds what a
microphone adds, from a seed.
"""

import random
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from parley_core.tokens import GROUP_DURATION

SAMPLE_RATE = 16_000
VOICES = ("slt", "rms", "awb", "kal16")
# Mean fundamental of each voice as flite speaks it, in Hz.
MEAN_F0 = {"slt": 170.0, "rms": 95.0, "awb": 140.0, "kal16": 105.0}
F0_DEVIATION = {"slt": 11.0, "rms": 11.0, "awb": 20.0, "kal16": 11.0}

PAUSE, EDGE, BEHIND = "pau", 0.06, 0.1
"""flite's name of a pause; seconds for which a word still sounds beyond its last phone; seconds of
pause that an utterance to be tokenised has behind that at least."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a text is spoken.

    Voice, duration factor, factors on the mean and the spread of the fundamental.
    """

    voice: str
    stretch: float = 1.0
    pitch: float = 1.0
    range: float = 1.0


# One fixed rendering a style tag, so that a tag means something that can be learnt and measured.
STYLES: dict[str, tuple[float, float, float]] = {
    "": (1.0, 1.0, 1.0),
    "快速1": (0.85, 1.0, 1.0),
    "快速2": (0.70, 1.0, 1.0),
    "慢速1": (1.20, 1.0, 1.0),
    "慢速2": (1.45, 1.0, 1.0),
    "高兴1": (0.95, 1.20, 1.6),
    "高兴2": (0.90, 1.35, 2.0),
    "悲伤1": (1.20, 0.84, 0.5),
    "生气1": (0.90, 1.10, 2.4),
    "RAP": (0.80, 0.92, 0.1),
    "哼唱": (1.60, 1.25, 0.1),
}


def styled(voice: str, tag: str = "") -> Rendering:
    """The rendering of a style tag (without brackets; empty for none) in a voice."""
    stretch, pitch, spread = STYLES[tag]
    return Rendering(voice, stretch, pitch, spread)


@dataclass(frozen=True, slots=True)
class Utterance:
    """Samples, float32 in -1..1 at 16 kHz, and phones as (name, end in seconds)."""

    samples: NDArray[np.float32]
    phones: tuple[tuple[str, float], ...]


def render(text: str, rendering: Rendering) -> Utterance:
    """Speaks a text.

    Raises:
        FileNotFoundError: flite is not installed.
        subprocess.CalledProcessError: flite failed.
    """
    mean = MEAN_F0[rendering.voice] * rendering.pitch
    deviation = F0_DEVIATION[rendering.voice] * rendering.range
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [
            "flite", "-voice", rendering.voice, "--setf", f"duration_stretch={rendering.stretch}",
            "--setf", f"int_f0_target_mean={mean}", "--setf", f"int_f0_target_stddev={deviation}",
            "-psdur", "-t", text, "-o", str(path),
        ]  # fmt: skip
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"flite's {rendering.voice} speaks at {rate} Hz, not {SAMPLE_RATE}")
    phones = tuple((name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", told))
    return Utterance(samples, phones)


def in_whole_groups(utterance: Utterance) -> NDArray[np.float32]:
    """An utterance with silence behind it, so that its tokens hold all of it.

    What fills no group of tokens is dropped, a tenth of a second at most: a model that learns from
    such tokens stops in the middle of the last sound.
    """
    group = round(GROUP_DURATION.total_seconds() * SAMPLE_RATE)
    least = int((_end(utterance.phones) + BEHIND) * SAMPLE_RATE)
    groups = -(-max(utterance.samples.size, least) // group)
    return np.pad(utterance.samples, (0, groups * group - utterance.samples.size))


def live(samples: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """An utterance as a live stream holds it: silence before and behind, through a microphone.

    Voice activity detection hands on what lies before the speech (0.4 s), and the pause behind it
    up to the moment when a reply is begun (0.2 s and more).
    """
    rng = random.Random(seed)
    before = rng.uniform(0.2, 0.5) if rng.random() < 0.7 else rng.uniform(0, 0.2)
    around = (int(before * SAMPLE_RATE), int(rng.uniform(0, 0.7) * SAMPLE_RATE))
    return vary(np.pad(samples, around), seed)


def between_silences(
    samples: NDArray[np.float32], phones: tuple[tuple[str, float], ...], seed: int
) -> NDArray[np.float32]:
    """An utterance with another length of silence before and behind it, every other one.

    flite begins and ends with a pause of a tenth of a second and more. Whoever cuts closer, or
    lets a stream run on, has none or much: some of the pauses goes, and digital silence comes.
    """
    rng = random.Random(seed)
    if rng.random() < 0.5:
        return samples
    begin = phones[0][1] if phones[0][0] == PAUSE else 0.0
    end = _end(phones)
    first = int(rng.random() * max(0.0, begin - EDGE) * SAMPLE_RATE)
    last = int((end + EDGE) * SAMPLE_RATE)
    last += int(rng.random() * max(0, samples.size - last))
    silence = [rng.choice((0.0, rng.uniform(0, 0.5))) for _ in range(2)]
    return np.pad(samples[first:last], [int(each * SAMPLE_RATE) for each in silence])


def _end(phones: tuple[tuple[str, float], ...]) -> float:
    """Seconds at which the last phone that is no pause ends."""
    return phones[-2][1] if len(phones) > 1 and phones[-1][0] == PAUSE else phones[-1][1]


def vary(samples: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """A microphone's view of speech.

    Gain always; a band limit now and then; in seven of ten cases noise at 10 to 50 dB below the
    speech. The others stay clean: digital silence is what synthetic prompts have.
    """
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    if rng.random() < 0.3:
        spectrum *= 1 / (1 + (frequencies / rng.uniform(2800, 7000)) ** 8)
    if rng.random() < 0.3:
        low = rng.uniform(60, 250)
        spectrum *= (frequencies / low) ** 2 / (1 + (frequencies / low) ** 2)
    heard = np.fft.irfft(spectrum, samples.size)
    if rng.random() < 0.7:
        level = np.sqrt(np.mean(heard**2)) * 10 ** (-rng.uniform(10, 50) / 20)
        heard = heard + noise.normal(0.0, level, samples.size)
    gain = rng.uniform(0.2, 0.95) / max(float(np.max(np.abs(heard))), 1e-4)
    return (heard * gain).astype(np.float32)
