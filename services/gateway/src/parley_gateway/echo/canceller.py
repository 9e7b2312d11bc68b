"""What the microphone heard, without what we sent.

Contract: samples in, as many out. While nothing that we sent can be heard, or nothing of it comes
back, they pass through untouched. The echo is found by its delay, which is searched for once and
then followed, and subtracted through a short filter that is fitted again and again: level, colour
and a wandering delay do not matter, and a user who talks over the echo is left. It takes about a
quarter of a second of echo to find it the first time. Searching and fitting run in a thread.
Not for: echo that is distorted beyond recognition; what is left of it is for the rest to judge.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parley_gateway.echo.reference import EchoReference
from parley_gateway.vad import SAMPLE_RATE

Samples = npt.NDArray[np.float32]

EARLIEST_S, LATEST_S = -0.1, 1.5
"""Delays that are searched for: players buffer, and clocks of ours may run behind theirs."""
_TAPS = 192
_LEAD = 24
"""Taps in front of the delay that was found: it moves, and resampling rings both ways."""
_SEARCH, _FIT = 4_096, 4_800
_EVERY, _SLOWEST = 1_024, 8_192
_FLOOR = 3e-4
"""Amplitude below which nobody would take the microphone's sound for speech."""
_FOUND, _HARDLY, _WHOLLY = 0.5, 0.12, 0.8
"""Shares of the echo in what is heard: it is surely there, it is hardly there, it is all."""
_LOUDEST = 4.0
"""Gain of power above which it is no echo, but somebody who says the same."""
_LOST = 8


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left.

    Attributes:
        samples: As many as came in.
        found: The echo was found just now: what seemed speech before may have been it.
    """

    samples: Samples
    found: bool = False


class EchoCanceller:
    """The echo of one stream."""

    def __init__(self, reference: EchoReference) -> None:
        """Begins without knowing the delay; `reference` is what was sent."""
        self._reference = reference
        self._heard: Samples = np.zeros(0, np.float32)
        self._now = 0
        self._delay: int | None = None
        self._filter: Samples = np.zeros(_TAPS, np.float32)
        self._share = 0.0
        self._waited = 0
        self._patience = _EVERY
        self._misses = 0

    @property
    def delay(self) -> float | None:
        """Seconds between sending and hearing; None while no echo is known."""
        return None if self._delay is None else self._delay / SAMPLE_RATE

    async def feed(self, samples: Samples) -> Cleaned:
        """Takes the microphone's sound.

        Args:
            samples: float32 ``[N]``, mono, 16 kHz.

        Returns:
            It without the echo.
        """
        self._now += len(samples)
        self._heard = np.concatenate([self._heard, samples])[-_FIT:]
        if not len(samples) or not self._reference.audible(self._now):
            return Cleaned(samples)
        self._waited += len(samples)
        found = False
        if self._waited >= self._patience and _power(samples) > _FLOOR**2:
            self._waited = 0
            found = await asyncio.to_thread(self._work)
        if self._delay is None:
            return Cleaned(samples)
        return Cleaned(self._subtract(samples, self._delay), found)

    def _work(self) -> bool:
        if self._delay is not None:
            self._follow(self._delay)
            if self._misses < _LOST:
                return False
        return self._search()

    def _search(self) -> bool:
        heard = self._heard[-_SEARCH:]
        first = self._now - _SEARCH - round(LATEST_S * SAMPLE_RATE)
        last = self._now - round(EARLIEST_S * SAMPLE_RATE)
        sent = self._reference.window(first, last)
        if len(heard) < _SEARCH or _power(heard) < _FLOOR**2 or _power(sent) < _FLOOR**2:
            return False
        # Who has no echo does not pay for the search all the time.
        self._patience = min(self._patience + _EVERY // 16, _SLOWEST)
        delay = self._now - _SEARCH - (first + _best_match(heard, sent))
        fit = self._fit(delay, _SEARCH)
        if fit is None or fit[1] < _FOUND:
            return False
        self._filter, self._share = fit
        self._delay, self._misses, self._patience = delay, 0, _EVERY
        return True

    def _follow(self, delay: int) -> None:
        fit = self._fit(delay, len(self._heard))
        if fit is None:
            # Nothing was heard or sent: the last filter stays good.
            return
        taps, self._share = fit
        if self._share < _HARDLY:
            self._filter = np.zeros(_TAPS, np.float32)
            self._misses += 1
            return
        self._misses = 0
        moved = int(np.argmax(np.abs(taps))) - _LEAD
        if self._share >= _FOUND and abs(moved) > _LEAD // 2:
            self._delay = delay + moved
            taps = np.roll(taps, -moved)
        self._filter = taps

    def _fit(self, delay: int, length: int) -> tuple[Samples, float] | None:
        """The filter that makes the last `length` samples of what was sent, and its share in them.

        Least squares. None where nothing was heard or sent, or the filter would be no echo's.
        """
        heard = self._heard[-length:]
        end = self._now - delay + _LEAD
        sent = self._reference.window(end - length - _TAPS + 1, end)
        power = _power(heard)
        if power < _FLOOR**2 or _power(sent) < _FLOOR**2:
            return None
        wanted = np.correlate(sent, heard, "valid")[::-1].astype(np.float64)
        products = _products(sent.astype(np.float64), length)
        products[np.diag_indices(_TAPS)] += 1e-4 * products[0, 0] + 1e-9
        taps = np.linalg.solve(products, wanted)
        share = float(2 * wanted @ taps - taps @ products @ taps) / length / power
        if share * power > _LOUDEST * _power(sent):
            return None
        return taps.astype(np.float32), share

    def _subtract(self, samples: Samples, delay: int) -> Samples:
        end = self._now - delay + _LEAD
        sent = self._reference.window(end - len(samples) - _TAPS + 1, end)
        rest = samples - np.convolve(sent, self._filter, "valid").astype(np.float32)
        before, after = _power(samples), _power(rest)
        if after >= before:
            return samples
        if self._share > _WHOLLY and after < (1 - _WHOLLY) * before:
            # What is left of a mere echo is what the filter could not make: nothing to listen to.
            return rest * np.float32(0.1)
        return rest


def _best_match(heard: Samples, sent: Samples) -> int:
    """Where in `sent` lies what is most like `heard`, whatever the colours of the two."""
    size = 1 << (len(heard) + len(sent) - 1).bit_length()
    cross = np.fft.rfft(sent, size) * np.conj(np.fft.rfft(heard, size))
    weight = np.abs(cross)
    cross /= weight + 1e-3 * weight.max() + 1e-20
    match = np.fft.irfft(cross, size)[: len(sent) - len(heard) + 1]
    return int(np.argmax(match))


def _products(sent: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Products of all pairs of the signals of `length` samples that lie one sample apart in `sent`.

    The first row is computed; along each diagonal one sample enters and one leaves. A product of
    whole matrices would be simpler, and keep every core of the machine busy.
    """
    count = len(sent) - length + 1
    products = np.empty((count, count))
    products[0] = products[:, 0] = np.correlate(sent, sent[count - 1 :], "valid")[::-1]
    enters, leaves = sent[count - 2 :: -1], sent[length + count - 2 : length - 1 : -1]
    for row in range(count - 1):
        step = enters[row] * enters - leaves[row] * leaves
        products[row + 1, 1:] = products[row, :-1] + step
    return products


def _power(samples: npt.NDArray[np.floating]) -> float:
    return float(np.dot(samples, samples)) / len(samples)
