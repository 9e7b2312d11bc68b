"""The agent's voice, played in time.

Contract: what came is played in order, tick by tick; `next` gives what is heard in this tick and
`progress` how far each response has been heard. What was cut off is dropped at once and what still
comes of it is not played. Not for the sound card (`microphone`).
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from parley_client.recording import Samples
from parley_client.talk import RATE


@dataclass
class _Playing:
    response_id: str
    waiting: deque[Samples] = field(default_factory=deque)
    played: int = 0
    complete: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a response has been heard.

    Attributes:
        response_id: which.
        played_s: seconds.
        finished: nothing of it is left to play.
    """

    response_id: str
    played_s: float
    finished: bool


class Player:
    """Plays responses one after the other; samples are int16 at `RATE`."""

    def __init__(self) -> None:
        self._queue: deque[_Playing] = deque()
        self._cut_off: set[str] = set()

    @property
    def playing(self) -> str:
        """The response that is heard now; empty when none is."""
        return self._queue[0].response_id if self._queue else ""

    def add(self, response_id: str, samples: Samples) -> None:
        """Takes a piece of a response, ``[n]``."""
        if response_id not in self._cut_off and len(samples):
            self._find(response_id).waiting.append(samples)

    def complete(self, response_id: str) -> None:
        """Takes note that nothing more comes of a response."""
        for each in self._queue:
            if each.response_id == response_id:
                each.complete = True

    def cut_off(self, response_id: str) -> float:
        """Drops what is left of a response; the seconds of it that were heard."""
        self._cut_off.add(response_id)
        dropped = [each for each in self._queue if each.response_id == response_id]
        for each in dropped:
            self._queue.remove(each)
        return dropped[0].played / RATE if dropped else 0.0

    def break_off(self) -> None:
        """Drops what is left of responses that are not complete: nothing more comes of them."""
        for each in [each for each in self._queue if not each.complete]:
            self.cut_off(each.response_id)

    def next(self, length: int) -> tuple[Samples, list[Progress]]:
        """What is heard in a tick.

        Args:
            length: samples of the tick.

        Returns:
            Samples ``[length]``, silent where there is nothing to play, and how far each response
            that is heard in them is.
        """
        frame = np.zeros(length, np.int16)
        filled = 0
        progress = []
        while self._queue:
            now = self._queue[0]
            before = filled
            while filled < length and now.waiting:
                piece = now.waiting.popleft()
                room = length - filled
                if len(piece) > room:
                    now.waiting.appendleft(piece[room:])
                    piece = piece[:room]
                frame[filled : filled + len(piece)] = piece
                filled += len(piece)
            now.played += filled - before
            finished = now.complete and not now.waiting
            if filled > before or finished:
                progress.append(Progress(now.response_id, now.played / RATE, finished))
            if not finished:
                break
            self._queue.popleft()
        return frame, progress

    def _find(self, response_id: str) -> _Playing:
        for each in self._queue:
            if each.response_id == response_id:
                return each
        made = _Playing(response_id)
        self._queue.append(made)
        return made
