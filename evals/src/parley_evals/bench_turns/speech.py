"""Users made of a recording and labelled pauses: what they say, and when they are really done.

Contract: the same seed makes the same users. Pauses come from `parley_gateway.turns.replay`, the
distributions of the literature; speech is cut out of one recording, so that a real detector hears
it. Not for how a detector does on many voices.
"""

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from parley_gateway.turns.replay import generate

from parley_evals.bench_turns.frames import FRAME, RATE, Pcm

_FADE_S = 0.01
_NOISE = 3.0


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """One turn, in seconds of the user's audio.

    Attributes:
        begins: The first sound.
        ends: The end of the last.
    """

    begins: float
    ends: float


@dataclass(frozen=True, slots=True, eq=False)
class User:
    """What one user sends: int16 `[whole frames]`, and the turns in it."""

    pcm: Pcm
    turns: tuple[SpokenTurn, ...]


def read_speech(path: Path) -> Pcm:
    """The part of a recording (PCM16, mono, 16 kHz) between its first and last loud sample."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path} is not 16-bit mono at {RATE} Hz")
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > np.abs(pcm.astype(np.int32)).max() // 10)
    if not len(loud):
        raise ValueError(f"{path} is silent")
    return pcm[loud[0] : loud[-1] + 1]


def make_user(
    speech: Pcm, seconds: float, seed: int, *, answer_s: float, longest_pause_s: float = 1.5
) -> User:
    """A user who talks and listens in turn for about `seconds`.

    Args:
        speech: To cut from, int16.
        seconds: Length.
        seed: Of everything.
        answer_s: Silence behind each turn, for the answer.
        longest_pause_s: Longer pauses inside a turn are cut down, so that runs stay short.
    """
    source = np.random.default_rng(seed)
    (speaker,) = generate(1, 100, seed)
    parts = [_silence(source, 0.5 + source.uniform(0, answer_s))]
    turns: list[SpokenTurn] = []
    at = len(parts[0])
    for turn in speaker:
        begins = at
        ends = at
        for pause in turn:
            said = _piece(speech, source)
            ends = at + len(said)
            rest = answer_s if pause.ends_turn else min(pause.length, longest_pause_s)
            parts += [said, _silence(source, rest)]
            at = ends + len(parts[-1])
        if at > seconds * RATE:
            break
        turns.append(SpokenTurn(begins / RATE, ends / RATE))
    whole = np.concatenate(parts)[: round(seconds * RATE) // FRAME * FRAME]
    return User(whole, tuple(turns))


def make_interrupter(
    speech: Pcm, seconds: float, seed: int, *, listen_s: float, every_s: float
) -> User:
    """A user who asks, listens for `listen_s`, talks over the answer, and asks again.

    Its turns are the interruptions alone.
    """
    source = np.random.default_rng(seed)
    parts = [_silence(source, 0.5 + source.uniform(0, 2))]
    turns: list[SpokenTurn] = []
    at = len(parts[0])
    while True:
        question, interruption = _piece(speech, source), speech[: round(1.5 * RATE)]
        gap, rest = _silence(source, listen_s + source.uniform(0, 0.5)), _silence(source, every_s)
        begins = at + len(question) + len(gap)
        parts += [question, gap, interruption, rest]
        at = begins + len(interruption) + len(rest)
        if at > seconds * RATE:
            break
        turns.append(SpokenTurn(begins / RATE, (begins + len(interruption)) / RATE))
    whole = np.concatenate(parts)[: round(seconds * RATE) // FRAME * FRAME]
    return User(whole, tuple(turns))


def _piece(speech: Pcm, source: np.random.Generator) -> Pcm:
    """0.9 to 1.6 s of the recording, faded at both ends."""
    length = round(source.uniform(0.9, 1.6) * RATE)
    begin = int(source.integers(0, max(1, len(speech) - length)))
    piece = speech[begin : begin + length].astype(np.float64)
    fade = np.linspace(0, 1, round(_FADE_S * RATE))
    piece[: len(fade)] *= fade
    piece[-len(fade) :] *= fade[::-1]
    return piece.astype(np.int16)


def _silence(source: np.random.Generator, seconds: float) -> Pcm:
    return source.normal(0, _NOISE, round(seconds * RATE)).astype(np.int16)
