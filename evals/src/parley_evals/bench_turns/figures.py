"""What the recordings of a run come to. Pure arithmetic: times in seconds of one clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from parley_evals.bench_turns.speech import SpokenTurn


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Reply:
    """One response as a client saw it; times count from the user's first frame.

    Attributes:
        committed: The decision that it is given.
        speculative: It was begun before.
        audio: Arrival of each piece of sound.
        offsets: Where each piece belongs in the reply's sound, in seconds.
        completed: When the client was told that it is generated.
        interrupted: When the client was told that it is cut off.
    """

    committed: float
    speculative: bool = False
    audio: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    completed: float | None = None
    interrupted: float | None = None

    @property
    def dry(self) -> float:
        """Seconds that a player was out of sound for, the first piece played as it came.

        All pieces count, so sound that was held back on purpose, as over an interruption, does too.
        """
        behind = [
            at - self.audio[0] - offset for at, offset in zip(self.audio, self.offsets, strict=True)
        ]
        return max(0.0, *behind) if behind else 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One session of a run.

    Attributes:
        turns: What the user said, and when.
        replies: In order.
        speculations: When attempts were begun early.
    """

    turns: tuple[SpokenTurn, ...]
    replies: tuple[Reply, ...] = ()
    speculations: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnTaking:
    """How turns were taken.

    Attributes:
        gaps: End of speech to first sound at the client, by place of the turn (conversation,
            turn), of the turns that were answered when they had ended.
        cut_off: Turns that were answered before they had ended.
        unanswered: Turns without a sound before the next one.
        begun: Attempts begun early.
        committed: Of these, played.
    """

    gaps: dict[tuple[int, int], float] = field(default_factory=dict)
    cut_off: int = 0
    unanswered: int = 0
    begun: int = 0
    committed: int = 0

    @property
    def turns(self) -> int:
        """All of them."""
        return len(self.gaps) + self.cut_off + self.unanswered

    @property
    def committed_share(self) -> float:
        """Of the attempts begun early; NaN without any."""
        return self.committed / self.begun if self.begun else math.nan


def turn_taking(conversations: Sequence[Conversation]) -> TurnTaking:
    """Matches replies to turns."""
    gaps: dict[tuple[int, int], float] = {}
    cut_off = unanswered = 0
    for place, conversation in enumerate(conversations):
        turns = conversation.turns
        for number, turn in enumerate(turns):
            after = turns[number + 1].begins if number + 1 < len(turns) else math.inf
            replies = [each for each in conversation.replies if turn.begins <= each.committed]
            if any(each.committed < turn.ends for each in replies):
                cut_off += 1
                continue
            sounds = [min(each.audio) for each in replies if each.audio and each.committed < after]
            if sounds:
                gaps[place, number] = min(sounds) - turn.ends
            else:
                unanswered += 1
    return TurnTaking(
        gaps,
        cut_off,
        unanswered,
        begun=sum(len(each.speculations) for each in conversations),
        committed=sum(reply.speculative for each in conversations for reply in each.replies),
    )


def saved(without: TurnTaking, with_it: TurnTaking) -> float:
    """Mean seconds by which the same turns were answered sooner; NaN when there are none."""
    both = without.gaps.keys() & with_it.gaps.keys()
    if not both:
        return math.nan
    return sum(without.gaps[each] - with_it.gaps[each] for each in both) / len(both)


def barge_ins(conversations: Sequence[Conversation]) -> tuple[list[float], list[float]]:
    """Onset of each interruption to the last sound of the reply, and to the word of it.

    Only replies that were still being sent when the user began are taken; one whose sound had all
    left before says nothing. A reply of which nothing came after the onset stopped at once: 0.
    """
    last: list[float] = []
    told: list[float] = []
    for conversation in conversations:
        for turn in conversation.turns:
            for reply in conversation.replies:
                if reply.interrupted is None or not reply.audio:
                    continue
                if not turn.begins <= reply.interrupted < turn.ends + 1.0:
                    continue
                if reply.completed is not None and reply.completed <= turn.begins:
                    continue
                last.append(max(0.0, max(reply.audio) - turn.begins))
                told.append(reply.interrupted - turn.begins)
    return last, told
