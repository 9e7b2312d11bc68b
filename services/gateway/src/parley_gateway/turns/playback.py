"""How much of a response was heard.

Contract: with reports, heard is what the client reported; without, what a player that starts at
once and never stalls would have played. Reports may come twice and out of order. Pure: the time is
an argument.
"""

from dataclasses import dataclass
from math import inf

REPORT_GRACE = 2.0
"""Seconds past the expected end after which a client that reports is not waited for any more."""


@dataclass(slots=True)
class Playback:
    """The playing of one response.

    Attributes:
        sent: Seconds of audio sent.
    """

    sent: float = 0.0
    _clock_end: float = -inf
    _reported: float | None = None
    _reported_at: float = 0.0
    _finished: bool = False

    def send(self, seconds: float, now: float) -> None:
        """Takes note of audio sent at `now`."""
        if seconds > 0:
            self.sent += seconds
            self._clock_end = max(self._clock_end, now) + seconds
            self._finished = False

    def report(self, offset: float, finished: bool, now: float) -> None:
        """Takes note of what the client says it has played."""
        offset = min(max(offset, 0.0), self.sent)
        if self._reported is None or offset >= self._reported:
            self._reported, self._reported_at = offset, now
        self._finished = self._finished or finished

    def settle(self, offset: float, now: float) -> None:
        """Takes the client's last word on what was heard, whatever it reported before."""
        self._reported = None
        self.report(offset, True, now)

    def heard(self, now: float) -> float:
        """Seconds of the response that were heard by `now`."""
        if self._reported is not None:
            return self._reported
        return max(0.0, self.sent - max(0.0, self._clock_end - now))

    def over_at(self) -> float:
        """When nothing of what was sent is left to play, if nothing more is told or sent."""
        if self._reported is None:
            return self._clock_end
        if self._finished or self._reported >= self.sent:
            return self._reported_at
        return self._reported_at + (self.sent - self._reported) + REPORT_GRACE
