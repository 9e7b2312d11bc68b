"""When a pause is the end of the turn.

Contract: a policy judges one pause at a time from what is known of it, and may learn from how
earlier ones went; it has no clock. Which is better is measured as dead air (waiting out pauses that
were ends) against false cut-offs (pauses taken for ends): `turns.replay`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Eagerness(Enum):
    """How quickly a pause is taken for the end of a turn."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    AUTO = "auto"


END_OF_TURN_SILENCE = {Eagerness.LOW: 1.2, Eagerness.MEDIUM: 0.8, Eagerness.HIGH: 0.5}
"""Seconds of silence that end a turn."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What is known of a pause besides its length.

    Attributes:
        speech_probability: The voice activity detection's, mean over the pause so far: breath and
            "uhm" keep it up, a finished sentence lets it fall.
        score: Probability that the sentence is finished by its words; None while not judged.
    """

    speech_probability: float = 0.0
    score: float | None = None


class EndOfTurnPolicy(Protocol):
    """Decides how long a silence must last to end the turn."""

    wants_score: bool

    def silence_needed(self, pause: Pause) -> float:
        """Seconds of silence, from the last speech, after which the turn has ended."""
        ...

    def probability(self, pause: Pause, silence: float) -> float:
        """Probability, 0 to 1, that the turn has ended after `silence` seconds."""
        ...

    def learn(self, silence: float) -> None:
        """Takes note of a pause of `silence` seconds after which the user went on."""
        ...


class SilencePolicy:
    """A turn ends after a fixed silence."""

    wants_score = False

    def __init__(self, silence: float) -> None:
        """`silence` is in seconds."""
        self._silence = silence

    def silence_needed(self, pause: Pause) -> float:
        """The fixed silence."""
        return self._silence

    def probability(self, pause: Pause, silence: float) -> float:
        """1 from the fixed silence on, 0 before: this policy knows nothing in between."""
        return 1.0 if silence >= self._silence else 0.0

    def learn(self, silence: float) -> None:
        """Learns nothing."""


class AdaptivePolicy:
    """Silence weighed by the voice activity detection, around the pauses that this user makes.

    The user's pauses inside turns are followed by a moving mean and deviation; the delay lies above
    most of them, within bounds. Where the detection still half hears speech, it is longer.
    """

    wants_score = False

    def __init__(
        self,
        *,
        start: float = 0.6,
        shortest: float = 0.4,
        longest: float = 1.6,
        rate: float = 0.25,
        deviations: float = 1.0,
        hesitation: float = 2.0,
    ) -> None:
        """Begins without knowing the user.

        Args:
            start: Delay before anything is learnt, seconds.
            shortest: Lower bound, seconds.
            longest: Upper bound, seconds.
            rate: Share of a new pause in the mean.
            deviations: The delay is the mean and so many deviations.
            hesitation: A pause of speech probability p is waited out 1 + p * hesitation as long.
        """
        self._delay = start
        self._shortest, self._longest = shortest, longest
        self._rate, self._deviations, self._hesitation = rate, deviations, hesitation
        self._mean: float | None = None
        self._deviation = 0.0

    def silence_needed(self, pause: Pause) -> float:
        """The delay learnt so far, longer where speech may go on."""
        return min(self._longest, self._delay * (1 + self._hesitation * pause.speech_probability))

    def probability(self, pause: Pause, silence: float) -> float:
        """Rises with the share of the delay that has passed."""
        return min(1.0, max(0.0, silence) / self.silence_needed(pause))

    def learn(self, silence: float) -> None:
        """Moves the delay towards above this pause."""
        # A user who went away and came back says nothing about how long they think.
        silence = min(silence, self._longest)
        if self._mean is None:
            self._mean, self._deviation = silence, silence / 4
        else:
            self._deviation += self._rate * (abs(silence - self._mean) - self._deviation)
            self._mean += self._rate * (silence - self._mean)
        wanted = self._mean + self._deviations * self._deviation
        self._delay = min(self._longest, max(self._shortest, wanted))


class SemanticPolicy:
    """Another policy, hastened by sentences that are finished and held by those that are not."""

    wants_score = True

    def __init__(
        self, silence: EndOfTurnPolicy, *, shortest: float = 0.3, longest: float = 2.0
    ) -> None:
        """Wraps a policy.

        Args:
            silence: Decides while there is no score.
            shortest: Silence that ends a turn whose words are surely finished, seconds.
            longest: Silence that ends a turn whose words are surely not, seconds.
        """
        self._inner = silence
        self._shortest, self._longest = shortest, longest

    def silence_needed(self, pause: Pause) -> float:
        """Between the bounds by the score, through the wrapped policy's delay at one half."""
        inner = self._inner.silence_needed(pause)
        if pause.score is None:
            return inner
        if pause.score >= 0.5:
            return inner + (min(inner, self._shortest) - inner) * (2 * pause.score - 1)
        return inner + (max(inner, self._longest) - inner) * (1 - 2 * pause.score)

    def probability(self, pause: Pause, silence: float) -> float:
        """The score where there is one, until the silence decides."""
        if silence >= self.silence_needed(pause):
            return 1.0
        inner = self._inner.probability(pause, silence)
        return inner if pause.score is None else min(1.0, (inner + pause.score) / 2)

    def learn(self, silence: float) -> None:
        """Teaches the wrapped policy."""
        self._inner.learn(silence)
