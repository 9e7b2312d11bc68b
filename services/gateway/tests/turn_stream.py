"""A turn controller on a virtual clock."""

from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.controller import TurnController
from parley_gateway.turns.end_of_turn import SilencePolicy
from parley_gateway.turns.problem import Problem
from parley_gateway.turns.rules import TurnRules

PROBLEM = Problem(14, "STAGE_LOST", "gone")


class Stream:
    """A controller and a clock; `tell` returns the effects without `WakeAt`."""

    def __init__(self, **rules):
        rules = {"end_of_turn": SilencePolicy(0.8), **rules}
        self.controller = TurnController("s", "t", TurnRules(**rules))
        self.now = 100.0
        self.wake = None

    def tell(self, event, after=0.0):
        self.now += after
        effects = self.controller.feed(event, self.now)
        for effect in effects:
            if isinstance(effect, fx.WakeAt):
                self.wake = effect.at
        return [each for each in effects if not isinstance(each, fx.WakeAt)]

    def wait(self, seconds):
        """Lets time pass; ticks come when asked for."""
        until, effects = self.now + seconds, []
        while self.wake is not None and self.wake <= until:
            self.now = max(self.now, self.wake)
            self.wake = None
            effects += self.tell(ev.Tick())
        self.now = until
        return effects

    @property
    def state(self):
        return self.controller.state

    def say_something(self):
        """A turn of the user; returns the key of the reply."""
        self.tell(ev.SpeechStarted(0.0))
        self.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
        (start,) = of(self.wait(0.6), fx.StartReply)
        return start.key

    def reply(self, key, seconds, *, done=True):
        effects = self.tell(ev.ReplyProduced(key, "audio", seconds))
        if done:
            effects += self.tell(ev.ReplyFinished(key))
        return effects


def of(effects, kind):
    return [each for each in effects if isinstance(each, kind)]


def kinds(effects):
    return [type(each) for each in effects]
