"""End-of-turn policies replayed over labelled pauses: dead air against false cut-offs.

`python -m parley_gateway.turns.replay` prints a table over policies. Contract: pure but for the
printing; the same seed makes the same pauses. The pauses are generated, not recorded:

- Pauses inside turns are log-normal, and their median differs between speakers (Heldner and Edlund
  2010, Campione and Veronis 2002: medians of 0.4 to 0.5 s, most below 1 s, a tail of several).
- The voice activity detection keeps some probability where the speaker hesitates (breath, "uhm").
- The semantic score is right about as often as published end-of-turn models (85 to 90 %), and is
  there at once; in a conversation it takes the chat model's first token.

Not for: how a real detector or model does on real speech.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from parley_gateway.turns.end_of_turn import (
    END_OF_TURN_SILENCE,
    AdaptivePolicy,
    Eagerness,
    EndOfTurnPolicy,
    Pause,
    SemanticPolicy,
    SilencePolicy,
)


@dataclass(frozen=True, slots=True)
class LabelledPause:
    """A pause.

    Attributes:
        pause: What a policy is told of it.
        length: Seconds until the user goes on; infinite at the end of the turn.
    """

    pause: Pause
    length: float

    @property
    def ends_turn(self) -> bool:
        """Whether the user is done."""
        return math.isinf(self.length)


@dataclass(frozen=True, slots=True)
class Score:
    """How a policy did.

    Attributes:
        dead_air: Seconds waited at each end of a turn.
        cut_off: Share of the pauses inside turns that were taken for ends.
        turns_cut: Share of the turns with at least one of those.
    """

    dead_air: tuple[float, ...]
    cut_off: float
    turns_cut: float

    def dead_air_at(self, share: float) -> float:
        """A quantile of the dead air, seconds."""
        ordered = sorted(self.dead_air)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


Turn = tuple[LabelledPause, ...]
Speaker = tuple[Turn, ...]


def generate(speakers: int, turns: int, seed: int) -> list[Speaker]:
    """Makes speakers, each with the pauses of their turns in order."""
    source = random.Random(seed)
    made = []
    for _ in range(speakers):
        median = source.lognormvariate(math.log(0.45), 0.35)
        made.append(tuple(tuple(_turn(source, median)) for _ in range(turns)))
    return made


def replay(policy: Callable[[], EndOfTurnPolicy], speakers: Sequence[Speaker]) -> Score:
    """Lets a new policy listen to each speaker.

    As in a conversation it learns from the pauses that it waited out: how long one would have been
    that it took for the end, nobody knows.
    """
    dead_air: list[float] = []
    pauses = cuts = turns = turns_cut = 0
    for speaker in speakers:
        judge = policy()
        for turn in speaker:
            cut_before = cuts
            for each in turn:
                needed = judge.silence_needed(each.pause)
                if each.ends_turn:
                    dead_air.append(needed)
                    continue
                pauses += 1
                if needed <= each.length:
                    cuts += 1
                else:
                    judge.learn(each.length)
            turns += 1
            turns_cut += cuts > cut_before
    return Score(tuple(dead_air), cuts / max(1, pauses), turns_cut / max(1, turns))


def _semantic() -> EndOfTurnPolicy:
    return SemanticPolicy(AdaptivePolicy())


POLICIES: dict[str, Callable[[], EndOfTurnPolicy]] = {
    f"silence, {eagerness.value} ({silence:g} s)": partial(SilencePolicy, silence)
    for eagerness, silence in END_OF_TURN_SILENCE.items()
}
POLICIES[f"silence x VAD, learnt ({Eagerness.AUTO.value})"] = AdaptivePolicy
POLICIES[f"the same with semantic score ({Eagerness.AUTO.value})"] = _semantic


def main() -> None:
    """Prints the table."""
    speakers = generate(speakers=200, turns=40, seed=1)
    print(f"{'policy':44} {'dead air mean':>13} {'p95':>7} {'pauses cut':>11} {'turns cut':>10}")
    for name, policy in POLICIES.items():
        score = replay(policy, speakers)
        print(
            f"{name:44} {fmean(score.dead_air):11.2f} s {score.dead_air_at(0.95):5.2f} s "
            f"{score.cut_off:10.1%} {score.turns_cut:9.1%}"
        )


def _turn(source: random.Random, median: float) -> Iterator[LabelledPause]:
    while source.random() < 0.5:
        # Shorter ones are no pauses to the detection.
        length = max(0.2, source.lognormvariate(math.log(median), 0.55))
        pause = Pause(source.betavariate(2, 6), score=source.betavariate(1.5, 4))
        yield LabelledPause(pause, length)
    pause = Pause(source.betavariate(1, 12), score=source.betavariate(4, 1.5))
    yield LabelledPause(pause, math.inf)


if __name__ == "__main__":
    main()
