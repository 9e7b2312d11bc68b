"""What holds for the turn controller whatever comes, in any order and at any time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.controller import State, TurnController, TurnRules
from parley_gateway.turns.effects import Decision
from parley_gateway.turns.end_of_turn import SilencePolicy
from parley_gateway.turns.problem import Problem

pytestmark = pytest.mark.unit

SILENCE, LONGEST, BACKCHANNEL = 0.5, 20.0, 0.3

ACTIONS = st.one_of(
    st.tuples(st.just("speech")),
    st.tuples(st.just("pause"), st.floats(0, 0.4)),
    st.tuples(st.just("activity")),
    st.tuples(st.just("activity end")),
    st.tuples(st.just("audio end")),
    st.tuples(st.just("text")),
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("playback"), st.integers(0, 3), st.floats(-1, 12), st.booleans()),
    # Replies put out, end and fail by their number from the newest, stale ones included.
    st.tuples(st.just("output"), st.integers(0, 3), st.floats(0, 4)),
    st.tuples(st.just("finish"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.integers(0, 3)),
    st.tuples(st.just("tick")),
)
STEPS = st.lists(st.tuples(st.floats(-0.5, 6), ACTIONS), max_size=60)


class World:
    """Executes effects on paper and checks each."""

    def __init__(self, interruption: bool):
        rules = TurnRules(SilencePolicy(SILENCE), interruption, BACKCHANNEL, LONGEST)
        self.controller = TurnController("s", "t", rules)
        self.now = 0.0
        self.wake = None
        self.keys = []
        self.running = set()
        self.audible = None
        self.completed = []
        self.recorded = set()
        self.utterance = None
        self.sent = {}
        self.play_end = {}
        self.reported = set()
        self.latest = 0.0

    def feed(self, event):
        self.latest = max(self.latest, self.now)
        for effect in self.controller.feed(event, self.now):
            self.execute(effect)
        self.check()

    def execute(self, effect):
        match effect:
            case fx.OpenUtterance(turn_id):
                assert self.utterance is None
                self.end_of_audible()
                self.utterance = turn_id
            case fx.StartReply(key, text):
                self.end_of_audible()
                assert key not in self.keys
                if text is None:
                    assert key.turn_id == self.utterance
                    self.utterance = None
                self.keys.insert(0, key)
                self.running.add(key)
                self.audible = key
            case fx.Send(key):
                assert key == self.audible, "stale output left"
                assert key in self.running, "output after the end"
            case fx.CancelReply(key):
                self.running.remove(key)
            case fx.TellInterruption(key, _, heard):
                assert key == self.audible
                assert 0 <= heard <= self.sent.get(key, 0) + 1e-9, "heard more than was sent"
                self.audible = None
            case fx.CompleteResponse(key):
                assert key not in self.completed, "a turn ended twice"
                self.running.discard(key)
                self.completed.append(key)
            case fx.RecordTurn(key, _, heard):
                assert heard is None or heard <= self.sent.get(key, 0) + 1e-9
                self.recorded.add(key)
            case fx.TellDecision(_, decision):
                assert decision in (Decision.HOLD, Decision.COMMIT)
            case fx.WakeAt(at):
                self.wake = at

    def end_of_audible(self):
        """Somebody else gets the floor: the last reply must be made, and played or cut off."""
        if self.audible is not None:
            assert self.audible in self.completed, "two replies"
            over = self.play_end.get(self.audible, float("-inf")) <= self.latest
            assert over or self.audible in self.reported, "two replies are audible"
            self.audible = None

    def check(self):
        state = self.controller.state
        if state is State.SILENCE:
            self.end_of_audible()
            assert self.utterance is None
            assert not self.running, "silence while a reply is being made"
        elif state is State.BOT_REPLYING:
            assert self.audible is not None
        else:
            assert self.utterance is not None
            assert self.wake is not None, "a turn that nothing would end"
        assert len(self.running) <= 1
        assert set(self.keys) - self.running == set(self.completed)
        assert set(self.completed) == self.recorded

    def pass_time(self, seconds):
        """Clocks may jump back; ticks come on time, or late."""
        self.now += seconds
        while self.wake is not None and self.wake <= self.now:
            self.wake = None
            self.feed(ev.Tick())

    def act(self, action):
        kind, *given_ = action
        match kind:
            case "speech":
                self.feed(ev.SpeechStarted(max(0.0, self.now)))
            case "pause":
                self.feed(ev.SpeechStopped(max(0.0, self.now - given_[0]), given_[0]))
            case "activity":
                self.feed(ev.ActivityStarted(self.now))
            case "activity end":
                self.feed(ev.ActivityEnded(self.now))
            case "audio end":
                self.feed(ev.AudioEnded(self.now))
            case "text":
                self.feed(ev.TextReceived("text"))
            case "cancel":
                named = self.keys[0].response_id if given_[0] and self.keys else ""
                self.feed(ev.CancelRequested(named))
            case "tick":
                self.feed(ev.Tick())
            case _ if given_[0] < len(self.keys):
                self.act_on_reply(kind, self.keys[given_[0]], given_[1:])

    def act_on_reply(self, kind, key, given_):
        match kind:
            case "playback":
                self.reported.add(key)
                self.feed(ev.PlaybackReported(key.response_id, *given_))
            case "output":
                if key in self.running:
                    self.sent[key] = self.sent.get(key, 0) + given_[0]
                    begins = max(self.play_end.get(key, 0.0), self.latest, self.now)
                    self.play_end[key] = begins + given_[0]
                self.feed(ev.ReplyProduced(key, "audio", given_[0]))
            case "finish":
                self.feed(ev.ReplyFinished(key))
            case "fail":
                self.feed(ev.ReplyFailed(key, Problem(14, "STAGE_LOST", "gone")))


@settings(max_examples=400, deadline=None)
@given(STEPS, st.booleans())
def test_invariants_hold_for_any_interleaving(steps, interruption):
    world = World(interruption)
    for seconds, action in steps:
        world.pass_time(seconds)
        world.act(action)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.booleans())
def test_whatever_happened_the_conversation_comes_to_rest(steps, interruption):
    world = World(interruption)
    for seconds, action in steps:
        world.pass_time(seconds)
        world.act(action)
    for _ in range(40):
        world.feed(ev.SpeechStopped(world.now, 0.1))
        for key in tuple(world.running):
            world.feed(ev.ReplyFinished(key))
        world.pass_time(30.0)
    assert world.controller.state is State.SILENCE
    assert set(world.completed) == set(world.keys)
