"""What the room makes of what we send: a long filter, followed from block to block.

Contract: `learn` takes blocks of both sounds and moves the filter as far as each of its bins may be
trusted: a user who speaks moves it little. A Kalman filter over partitions in the frequency domain
(Kuech, Mabande and Enzner, 2014), about 0.2 ms a block. Not for finding the delay (`search`), and
not for echo later than `TAPS` samples behind it.
"""

import numpy as np
import numpy.typing as npt

from parley_gateway.echo.track import Samples

BLOCK = 512
_PARTS = 4
TAPS = BLOCK * _PARTS
_STAYS = 0.999
"""How much of the room is the same a block later, as a factor of amplitude."""
_FADES = 0.3
"""Power of a part of the filter over that of the part before, before anything is known."""

_Spectrum = npt.NDArray[np.complex128]


class Room:
    """The filter of one delay."""

    def __init__(self, taps: Samples, left: float) -> None:
        """Begins with what is known.

        Args:
            taps: The first of them, at most `BLOCK`.
            left: Share of the echo's power that they do not make.
        """
        self.taps: Samples = np.zeros(TAPS, np.float32)
        self.taps[: len(taps)] = taps
        self._spectrum: _Spectrum = _spectrum(self.taps)
        first = float(np.mean(np.abs(self._spectrum[0]) ** 2))
        doubt = first * max(left, 0.01) * _FADES ** np.arange(_PARTS)
        self._doubt = np.repeat(doubt[:, None], BLOCK + 1, axis=1)
        self._rest = np.zeros(BLOCK + 1)

    def scale(self, gain: float) -> Samples:
        """The taps of a room that is louder or quieter."""
        return self.taps * np.float32(gain)

    def learn(self, heard: Samples, sent: Samples) -> None:
        """Takes a block.

        Args:
            heard: float32 `[BLOCK]`.
            sent: float32 `[BLOCK + TAPS]`, up to the same sample.
        """
        blocks = sent.reshape(_PARTS + 1, BLOCK)
        pairs = np.concatenate([blocks[:-1], blocks[1:]], axis=1)[::-1]
        sounds = np.fft.rfft(pairs)
        made = np.fft.irfft((sounds * self._spectrum).sum(axis=0))[BLOCK:]
        rest = np.fft.rfft(np.concatenate([np.zeros(BLOCK), heard - made]))
        self._rest = 0.5 * (self._rest + np.abs(rest) ** 2)
        power = np.abs(sounds) ** 2
        step = self._doubt / (0.5 * (power * self._doubt).sum(axis=0) + self._rest + 1e-9)
        moves = np.fft.irfft(step * sounds.conj() * rest)
        moves[:, BLOCK:] = 0
        self.taps += moves[:, :BLOCK].reshape(-1).astype(np.float32)
        self._spectrum += np.fft.rfft(moves)
        self._doubt *= _STAYS**2 * (1 - 0.5 * step * power)
        self._doubt += (1 - _STAYS**2) * np.abs(self._spectrum) ** 2


def _spectrum(taps: Samples) -> _Spectrum:
    parts = taps.reshape(_PARTS, BLOCK)
    return np.fft.rfft(np.concatenate([parts, np.zeros_like(parts)], axis=1))
