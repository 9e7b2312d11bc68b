"""What the microphone heard, without what we sent.

Contract: samples in, as many out. While nothing that we sent can be heard, or nothing of it comes
back, they pass through untouched. The echo is found by its delay and subtracted through a filter
that learns the room; level, colour and a wandering delay do not matter. A user who talks over the
echo is left: a guess at another filter takes over only where it does better on sound that it was
not made from, and what is left of an echo is lowered only while it is no more than always.
It takes about a third of a second of echo to find it the first time: somebody else's voice is like
what was sent for the length of a vowel, so a filter must also do on sound that it was not made
from, or be found twice. A packet of 20 ms costs a quarter of a millisecond; a search and a guess
cost one or two each, and come every 64 ms at most, ever less often while nothing is found.
Not for: echo that is distorted beyond recognition; what is left of it is for the rest to judge.
"""

from dataclasses import dataclass

import numpy as np

from parley_gateway.echo.reference import EchoReference
from parley_gateway.echo.room import BLOCK, TAPS, Room
from parley_gateway.echo.search import Fit, best_match, fit, power
from parley_gateway.echo.track import Samples, Track
from parley_gateway.vad import SAMPLE_RATE

EARLIEST_S, LATEST_S = -0.1, 1.5
"""Delays that are searched for: players buffer, and clocks of ours may run behind theirs."""
_FIRST_TAPS = 192
_LEAD = 24
"""Taps in front of the delay that was found: it moves, and resampling rings both ways."""
_LENGTH, _MOVED_LENGTH = 4_096, 2_048
"""Samples that a delay and a filter are made from; what has moved, has moved just now."""
_EVERY, _SLOWEST = 1_024, 8_192
_TRIAL = 960
"""Samples on which a guess shows that it is better than the filter in use."""
_BETTER = 0.7
_QUIET = 3e-4**2
"""Power below which nobody would take the microphone's sound for speech."""
_SURE, _FOUND, _PROVEN, _GONE = 0.8, 0.5, 0.3, 0.12
"""Shares of the echo in what is heard: it is there, it is there if seen twice at one delay, this
much of it in sound that the filter was not made from; it is hardly there."""
_LOUDEST = 4.0
"""Gain of power above which it is no echo, but somebody who says the same."""
_LEAST_LEFT, _MOST_LEFT = 1e-3, 0.06
"""What a filter always leaves of the echo, as a share of its power."""
_MERE, _SETTLED = 4.0, 8.0
"""Times as much as that: there is nothing else in it; there is no need to look for a better one."""
_LOWERED = np.float32(0.1)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left.

    Attributes:
        samples: As many as came in.
        found: The echo was found just now: what seemed speech before may have been it.
    """

    samples: Samples
    found: bool = False


@dataclass(slots=True)
class _Guess:
    """Another filter, that has yet to show that it is better; energies on the samples since."""

    taps: Samples
    samples: int = 0
    heard: float = 0.0
    made: float = 0.0
    left: float = 0.0
    left_by_other: float = 0.0


class EchoCanceller:
    """The echo of one stream."""

    def __init__(self, reference: EchoReference) -> None:
        """Begins without knowing the delay; `reference` is what was sent."""
        self._reference = reference
        self._heard = Track()
        self._now = 0
        self._delay: int | None = None
        self._room = Room(np.zeros(0, np.float32), 1.0)
        self._learnt = 0
        self._left = _MOST_LEFT
        self._settled = True
        self._guess: _Guess | None = None
        self._guesses = 0
        self._waited = 0
        self._patience = _EVERY
        self._suspected: int | None = None

    @property
    def delay(self) -> float | None:
        """Seconds between sending and hearing; None while no echo is known."""
        return None if self._delay is None else self._delay / SAMPLE_RATE

    def feed(self, samples: Samples) -> Cleaned:
        """Takes the microphone's sound.

        Args:
            samples: float32 ``[N]``, mono, 16 kHz.

        Returns:
            It without the echo.
        """
        begin, self._now = self._now, self._now + len(samples)
        if not len(samples) or not self._reference.audible(self._now):
            return Cleaned(samples)
        self._heard.write(begin, samples)
        self._heard.forget(self._now - _LENGTH)
        self._waited += len(samples)
        if power(samples) < _QUIET:
            return Cleaned(samples)
        clean = samples
        if self._delay is not None:
            clean = self._subtract(samples, self._delay)
        if self._delay is not None:
            self._learn(self._delay)
            if self._settled or self._guess:
                return Cleaned(clean)
        if self._waited < self._patience:
            return Cleaned(clean)
        self._waited = 0
        # Who has no echo does not pay for the search all the time.
        self._patience = min(self._patience + self._patience // 16, _SLOWEST)
        delay = self._search(_LENGTH if self._delay is None else _MOVED_LENGTH)
        if delay is not None:
            return Cleaned(self._subtract(samples, delay), True)
        if self._delay is not None:
            self._try_another(self._delay)
        return Cleaned(clean)

    def _subtract(self, samples: Samples, delay: int) -> Samples:
        sent = self._sent(delay, len(samples))
        echo = np.convolve(sent, self._room.taps, "valid")
        rest = samples - echo
        before, made, after = power(samples), power(echo), power(rest)
        if self._guess:
            self._prove(self._guess, samples, sent, min(before, after))
        self._settled = made < _QUIET or after < _SETTLED * self._left * made
        if after >= before:
            return samples
        if made > _QUIET and after < _MERE * self._left * made:
            self._left = max(_LEAST_LEFT, self._left + 0.1 * (after / made - self._left))
            # What the filter could not make of a mere echo: nothing to listen to.
            return rest * _LOWERED
        self._left = min(_MOST_LEFT, self._left * 1.02)
        return rest

    def _learn(self, delay: int) -> None:
        self._learnt = max(self._learnt, self._now - _LENGTH)
        while self._learnt + BLOCK <= self._now:
            self._learnt += BLOCK
            heard = self._heard.window(self._learnt - BLOCK, self._learnt)
            end = self._learnt - delay + _LEAD
            sent = self._reference.window(end - BLOCK - TAPS, end)
            if power(sent) > _QUIET:
                self._room.learn(heard, sent)

    def _search(self, length: int) -> int | None:
        """Looks for a delay that is not the one in use, and goes by it."""
        heard = self._heard.window(self._now - length, self._now)
        first = self._now - length - round(LATEST_S * SAMPLE_RATE)
        sent = self._reference.window(first, self._now - round(EARLIEST_S * SAMPLE_RATE))
        if self._now < length or power(heard) < _QUIET or power(sent) < _QUIET:
            return None
        place = best_match(heard, sent)
        if place is None:
            return None
        delay = self._now - length - (first + place)
        share = _FOUND
        if self._delay is not None:
            if abs(delay - self._delay) < _LEAD:
                return None
            known = np.convolve(self._sent(self._delay, length), self._room.taps, "valid")
            share = max(share, 1.2 - power(heard - known) / power(heard))
        found = self._fit(delay, length, np.zeros(_FIRST_TAPS, np.float32))
        if found is None or found.share < share or found.proven < _PROVEN:
            return None
        suspected, self._suspected = self._suspected, delay
        if found.share < _SURE and (suspected is None or abs(delay - suspected) >= _LEAD):
            self._patience = _EVERY
            return None
        self._suspected = None
        self._delay, self._patience = delay, _EVERY
        self._use(found.taps, 1 - found.share)
        return delay

    def _try_another(self, delay: int) -> None:
        """Guesses how the room has changed at once: in loudness, or altogether."""
        self._guesses += 1
        heard = self._heard.window(self._now - _MOVED_LENGTH, self._now)
        sent = self._sent(delay, _MOVED_LENGTH)
        if self._guesses % 2:
            echo = np.convolve(sent, self._room.taps, "valid")
            gain = max(0.0, float(echo @ heard) / (float(echo @ echo) + 1e-9))
            self._guess = _Guess(self._room.scale(gain))
            return
        found = self._fit(delay, _MOVED_LENGTH, self._room.taps[:_FIRST_TAPS])
        if found:
            taps = np.zeros(TAPS, np.float32)
            taps[:_FIRST_TAPS] = found.taps
            self._guess = _Guess(taps)

    def _prove(self, guess: _Guess, samples: Samples, sent: Samples, left_by_other: float) -> None:
        echo = np.convolve(sent, guess.taps, "valid")
        count, heard = len(samples), power(samples)
        guess.samples += count
        guess.heard += count * heard
        guess.made += count * power(echo)
        guess.left += count * min(heard, power(samples - echo))
        guess.left_by_other += count * left_by_other
        if guess.samples < _TRIAL:
            return
        self._guess = None
        if guess.left > _BETTER * guess.left_by_other:
            return
        self._patience = _EVERY
        if guess.made < _GONE * guess.heard:
            self._delay = None
        else:
            self._use(guess.taps, guess.left / guess.made)

    def _use(self, taps: Samples, left: float) -> None:
        self._room, self._learnt = Room(taps, left), self._now
        self._guess, self._settled = None, True
        self._left = min(max(left, _LEAST_LEFT), _MOST_LEFT)

    def _fit(self, delay: int, length: int, taps: Samples) -> Fit | None:
        """The first taps, of the last `length` samples; None where they would be no echo's."""
        heard = self._heard.window(self._now - length, self._now)
        sent = self._sent(delay, length, len(taps))
        if power(heard) < _QUIET or power(sent) < _QUIET:
            return None
        found = fit(heard, sent, taps)
        return found if found.share * power(heard) < _LOUDEST * power(sent) else None

    def _sent(self, delay: int, length: int, taps: int = TAPS) -> Samples:
        """What makes the echo in the last `length` samples."""
        end = self._now - delay + _LEAD
        return self._reference.window(end - length - taps + 1, end)
