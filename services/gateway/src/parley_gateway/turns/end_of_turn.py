"""When a pause is the end of the turn.

Contract: a policy is pure and answers for one pause at a time. Which is better is measured as dead
air (pauses waited out that were ends) against false cut-offs (ends that were pauses).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Eagerness(Enum):
    """How quickly a pause is taken for the end of a turn."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


END_OF_TURN_SILENCE = {Eagerness.LOW: 1.2, Eagerness.MEDIUM: 0.8, Eagerness.HIGH: 0.5}
"""Seconds of silence that end a turn."""


class EndOfTurnPolicy(Protocol):
    """Decides how long a silence must last to end the turn."""

    def silence_needed(self) -> float:
        """Seconds of silence, from the last speech, after which the turn has ended."""
        ...

    def probability(self, silence: float) -> float:
        """Probability, 0 to 1, that the turn has ended after `silence` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class SilencePolicy:
    """A turn ends after a fixed silence.

    Attributes:
        silence: Seconds that end it.
    """

    silence: float

    def silence_needed(self) -> float:
        """Seconds of silence after which the turn has ended."""
        return self.silence

    def probability(self, silence: float) -> float:
        """1 from the fixed silence on, 0 before: this policy knows nothing in between."""
        return 1.0 if silence >= self.silence else 0.0
