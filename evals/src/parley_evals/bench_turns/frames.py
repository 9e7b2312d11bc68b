"""Marks in audio that say what a frame is and when it was made.

Contract: a mark is a few quiet samples at the start of a frame of 20 ms of the user's audio, or of
a chunk of the reply's. All processes of a bench are on one machine, whose monotonic clock they
share. Not for audio that is resampled or mixed on its way.
"""

import numpy as np
import numpy.typing as npt

RATE = 16_000
FRAME = 320
FRAME_S = FRAME / RATE
MAX_SESSIONS = 200
MAX_FRAMES = 8192
_MARKER = 31
_BASE, _DIGITS = 256, 7

Pcm = npt.NDArray[np.int16]


def mark_frames(pcm: Pcm, session: int) -> Pcm:
    """A copy of a session's audio, each frame marked with session and number.

    Args:
        pcm: int16 `[F * FRAME]`, F up to `MAX_FRAMES`.
        session: below `MAX_SESSIONS`.
    """
    frames = pcm.reshape(-1, FRAME).copy()
    if not 0 <= session < MAX_SESSIONS or len(frames) > MAX_FRAMES:
        raise ValueError(f"session {session} of {len(frames)} frames cannot be marked")
    numbers = np.arange(len(frames))
    frames[:, 0] = _MARKER
    frames[:, 1] = session - MAX_SESSIONS // 2
    frames[:, 2] = numbers % 64 - 32
    frames[:, 3] = numbers // 64 - 64
    return frames.reshape(-1)


def read_frames(content: bytes) -> list[tuple[int, int]]:
    """Session and number of each marked frame in a message of whole frames."""
    pcm = np.frombuffer(content, dtype="<i2")
    if len(pcm) % FRAME:
        return []
    marks = pcm.reshape(-1, FRAME)[:, :4].tolist()
    return [
        (session + MAX_SESSIONS // 2, low + 32 + 64 * (high + 64))
        for marker, session, low, high in marks
        if marker == _MARKER
    ]


def stamp(samples: npt.NDArray[np.float32], now: float) -> None:
    """Writes a time in seconds, to the microsecond, into the first samples of a chunk of sound."""
    left = round(now * 1e6)
    for place in range(_DIGITS):
        samples[place] = (left % _BASE) / 32768
        left //= _BASE


def read_stamp(content: bytes) -> float:
    """The time that `stamp` wrote, from PCM_S16LE."""
    digits = np.frombuffer(content[: 2 * _DIGITS], dtype="<i2").tolist()
    return float(sum(digit * _BASE**place for place, digit in enumerate(digits)) / 1e6)
