"""What the turn controller goes by: the part of a conversation's configuration that decides turns.

Contract: frozen values in seconds; the policy in them may learn, for one conversation only.
"""

from dataclasses import dataclass

from parley_gateway.turns.end_of_turn import EndOfTurnPolicy


@dataclass(frozen=True, slots=True)
class SpeculationRules:
    """When a reply may begin before the turn is known to have ended.

    Attributes:
        pause: Silence after which it begins.
        max_tries: Attempts a turn.
        max_utterance: A turn that has lasted longer is not tried any more.
        max_queue: Wait for a place at the chat stage from which on there is no speculation: what
            may be thrown away does not make others wait.
    """

    pause: float = 0.2
    max_tries: int = 3
    max_utterance: float = 30.0
    max_queue: float = 0.3


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the controller goes by; a new one counts from the next event on.

    Attributes:
        end_of_turn: When a pause ends the turn.
        speculation: When to begin early; None for never.
        interruption: Whether speech cuts a reply off.
        interruption_speech: Speech that does; less is a backchannel.
        sure_speech: Speech that needs no words to be an interruption; after less, words are asked
            for, and without any the reply goes on.
        pause_told_after: Silence that has gone by when a pause is told: that speech went on is
            known only this much later.
        words_wait: How long the end of the turn waits for those words.
        max_utterance: A turn is taken to have ended after this.
    """

    end_of_turn: EndOfTurnPolicy
    speculation: SpeculationRules | None = None
    interruption: bool = True
    interruption_speech: float = 0.3
    sure_speech: float = 0.6
    pause_told_after: float = 0.0
    words_wait: float = 0.5
    max_utterance: float = 60.0
