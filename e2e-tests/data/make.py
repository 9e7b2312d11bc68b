"""Makes the recordings of this folder with flite 2.2 of Debian 12; the same bytes every time.

    python e2e-tests/data/make.py

`conversation.wav` is a whole side of a conversation for `parley talk --wav`: five turns at fixed
times. The third speaks over the reply to the second; during the reply to the fourth there is a hum
that means nothing.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parent
RATE = 16_000
# The sum, and what follows on it, are among those that no model was trained with.
QUESTIONS = {
    "sum.wav": "what is thirty nine plus seventeen",
    "follow_up.wav": "and plus two",
    "style.wav": "say we won the game very slowly",
    "weather.wav": "what is the weather in london",
}
TURNS = (
    (0.5, "what is thirty three plus thirty nine"),
    (8.0, "count from eleven to seventeen"),
    # The count goes on for some five seconds: this interrupts it.
    (12.6, "what is the capital of france"),
    (20.0, "repeat after me our teacher watches the night sky"),
    (31.0, "what is the weather in london"),
)
HUM_AT, HUM_S = 25.2, 0.45
END_S = 40.0


def speak(text: str, voice: str = "slt") -> np.ndarray:
    """int16 `[n]` at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples


def hum(seconds: float) -> np.ndarray:
    """A held vowel, int16 `[n]`: a voice without words."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros(len(t))
    for number in range(1, 30):
        gain = sum(
            1 / (1 + ((130 * number - at) / width) ** 2)
            for at, width in ((750, 90), (1200, 110), (2500, 160))
        )
        wave += gain / np.sqrt(number) * np.sin(2 * np.pi * 130 * number * t)
    edge = np.minimum(1, np.minimum(t, t[::-1]) / 0.04)
    return np.rint(9000 * wave / np.abs(wave).max() * edge).astype(np.int16)


def main() -> None:
    """Writes them all."""
    for name, text in QUESTIONS.items():
        soundfile.write(HERE / name, speak(text), RATE, subtype="PCM_16")
    whole = np.zeros(round(END_S * RATE), np.int16)
    pieces = [(at, speak(text)) for at, text in TURNS] + [(HUM_AT, hum(HUM_S))]
    for at, samples in pieces:
        begin = round(at * RATE)
        whole[begin : begin + len(samples)] = samples
    soundfile.write(HERE / "conversation.wav", whole, RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
