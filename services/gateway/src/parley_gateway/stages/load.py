"""How long requests wait at a stage, as this process has seen it lately.

Contract: shared by all sessions of the process; pure, the time is an argument. What was seen fades,
so that a stage that nobody asks is taken to be free again.
"""

import math

_FADE_S = 5.0
_NEW_SHARE = 0.3
_REFUSED_S = 1.0


class QueueLoad:
    """The wait for a place at one stage."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._at = -math.inf

    def waited(self, seconds: float, now: float) -> None:
        """Takes note of a request that waited."""
        before = self.wait(now)
        self._wait, self._at = before + _NEW_SHARE * (seconds - before), now

    def refused(self, retry_after: float | None, now: float) -> None:
        """Takes note of a request that the stage had no place for."""
        self._wait, self._at = max(self.wait(now), retry_after or _REFUSED_S), now

    def wait(self, now: float) -> float:
        """Seconds that a request is expected to wait."""
        return self._wait * math.exp(min(0.0, self._at - now) / _FADE_S)

    def falls_below(self, seconds: float, now: float) -> float:
        """Seconds until the wait is expected to be shorter than this, if nothing new is seen."""
        wait = self.wait(now)
        return _FADE_S * math.log(wait / seconds) if wait > seconds else 0.0
