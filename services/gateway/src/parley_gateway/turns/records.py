"""What the turn controller remembers of the user's turn, and of speech that goes on."""

from dataclasses import dataclass, field

from parley_gateway.turns.end_of_turn import Pause


@dataclass(slots=True)
class UserTurn:
    """What the user says in one turn, while it goes on.

    Attributes:
        turn_id: Its id.
        began_at: When.
        speech: Seconds of speech in it, up to the last pause.
        paused_at: When the speech stopped last.
        pause: What is known of that pause.
        words_due: Until when to wait for its words; None when nobody asked.
        revision: Of the next attempt at a reply.
        tries: Attempts so far.
    """

    turn_id: str
    began_at: float
    speech: float = 0.0
    paused_at: float = 0.0
    pause: Pause = field(default_factory=Pause)
    words_due: float | None = None
    revision: int = 0
    tries: int = 0


@dataclass(slots=True)
class Talk:
    """Speech that goes on, whether or not it is (yet) a turn.

    Attributes:
        offset: Where in the user's audio it begins.
        since: When it was found.
        muted: It is the rest of a turn that was too long.
        echo: It is the reply, heard back.
        told: The client says that it is the user, whatever it sounds like.
    """

    offset: float
    since: float
    muted: bool = False
    echo: bool = False
    told: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is the user, who wants something."""
        return not (self.muted or self.echo)
