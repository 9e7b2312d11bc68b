"""What holds for the turn controller whatever comes, in any order and at any time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.calls import Call
from parley_gateway.turns.controller import State, TurnController
from parley_gateway.turns.end_of_turn import SilencePolicy
from parley_gateway.turns.problem import Problem
from parley_gateway.turns.rules import SpeculationRules, TurnRules

pytestmark = pytest.mark.unit

SILENCE, PAUSE, LONGEST, BACKCHANNEL, SURE = 0.5, 0.2, 20.0, 0.3, 0.6
CALL_TIMEOUT = 3.0

ACTIONS = st.one_of(
    st.tuples(st.just("speech")),
    st.tuples(st.just("pause"), st.floats(0, 0.4)),
    st.tuples(st.just("activity")),
    st.tuples(st.just("activity end")),
    st.tuples(st.just("audio end")),
    st.tuples(st.just("full")),
    st.tuples(st.just("text")),
    st.tuples(st.just("note")),
    st.tuples(st.just("cancel"), st.booleans()),
    # What was heard of a reply, by its number from the newest; most of them are over.
    st.tuples(st.just("heard"), st.integers(0, 3), st.floats(-1, 12)),
    st.tuples(st.just("playback"), st.integers(0, 3), st.floats(-1, 12), st.booleans()),
    st.tuples(st.just("words"), st.sampled_from(["", " ", "stop"])),
    st.tuples(st.just("echo"), st.booleans()),
    st.tuples(st.just("score"), st.floats(0, 1)),
    st.tuples(st.just("basis")),
    st.tuples(st.just("queue"), st.floats(0, 1)),
    st.tuples(st.just("result"), st.integers(0, 3)),
    # Attempts put out, call, end and fail by their number from the newest, stale ones included.
    st.tuples(st.just("output"), st.integers(0, 3), st.floats(0, 4)),
    st.tuples(st.just("call"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("finish"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.integers(0, 3), st.sampled_from(["NO_SPEECH", "STAGE_LOST"])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("turn"), st.floats(0.1, 8)),
)
# What chance seldom puts together: a turn up to its reply's first sound, perhaps a call, a cough.
SCENES = st.tuples(
    st.floats(1, 8), st.booleans(), st.booleans(), st.sampled_from(["", "stop", None])
).map(
    lambda scene: [
        (0.0, ("turn", scene[0])),
        *([(0.0, ("call", 0, scene[2]))] if scene[1] else []),
        (0.0, ("cough", scene[3])),
    ]
)
STEPS = st.lists(st.tuples(st.floats(-0.5, 6), ACTIONS), max_size=40)
SHORT_STEPS = st.lists(st.tuples(st.floats(0, 0.3), ACTIONS), max_size=50)
ANY_STEPS = st.one_of(
    STEPS,
    SHORT_STEPS,
    st.tuples(STEPS, SCENES, SHORT_STEPS).map(lambda parts: [*parts[0][:8], *parts[1], *parts[2]]),
)
RULES = st.builds(
    TurnRules,
    st.just(SilencePolicy(SILENCE)),
    st.sampled_from([None, SpeculationRules(PAUSE, 3, 10.0, 0.3)]),
    st.booleans(),
    st.just(BACKCHANNEL),
    st.just(SURE),
    st.just(0.5),
    st.just(LONGEST),
)


class World:
    """Executes effects on paper and checks each.

    An attempt runs from its start until it is cancelled or ends by itself. A reply is what the
    client sees of one, under a key that changes when it goes on after a false alarm.
    """

    def __init__(self, rules):
        self.controller = TurnController("s", "t", rules)
        self.rules = rules
        self.now = 0.0
        self.wake = None
        self.attempts = []
        self.running = set()
        self.early = None
        self.utterance = None
        self.audible = None
        self.held = False
        self.attempt_of = {}
        self.completed = []
        self.recorded = set()
        self.corrected = None
        self.interrupted = {}
        self.put = {}
        self.left = {}
        self.unheard = {}
        self.sent = {}
        self.play_end = {}
        self.reported = set()
        self.told = {}
        self.stopped = {}
        self.talking = False
        self.calls = {}
        self.cancelled = set()
        self.cancelled_calls = {}
        self.latest = 0.0
        self.number = 0

    def feed(self, event):
        self.latest = max(self.latest, self.now)
        for effect in self.controller.feed(event, self.now):
            self.execute(effect)
        self.check()

    def begin(self, key):
        """A reply becomes audible."""
        self.end_of_audible()
        assert key not in self.attempt_of, "a response begins twice"
        self.audible, self.held = key, False

    def execute(self, effect):
        match effect:
            case fx.OpenUtterance(turn_id):
                assert self.utterance is None
                self.end_of_audible()
                self.utterance = turn_id
            case fx.DropUtterance(turn_id):
                assert self.utterance == turn_id
                self.utterance = None
            case fx.StartReply(key, text, _, speculative):
                assert key not in self.attempts
                assert text is not None or key.turn_id == self.utterance
                self.attempts.insert(0, key)
                self.running.add(key)
                self.put[key] = []
                if speculative:
                    assert self.early is None
                    assert self.rules.speculation
                    self.early = key
                else:
                    self.begin(key)
                    self.attempt_of[key] = key
                    if text is None:
                        self.utterance = None
            case fx.CommitReply(key, saved):
                assert key == self.early
                assert saved >= 0
                assert key.turn_id == self.utterance
                self.early = self.utterance = None
                self.begin(key)
                self.attempt_of[key] = key
            case fx.DiscardReply(key):
                assert key == self.early
                assert key not in self.running, "a discarded attempt goes on"
                self.early = None
            case fx.ResumeReply(key, before, heard):
                assert before in self.interrupted
                assert heard == self.interrupted.pop(before)
                self.begin(key)
                assert self.utterance is None
                self.attempt_of[key] = self.attempt_of[before]
                self.unheard[key] = list(self.rest_of(before, heard))
            case fx.Send(key, output, skip):
                assert key == self.audible, "stale output left"
                assert not self.held, "output left while it was held"
                assert key not in self.completed, "output after the end"
                assert output in self.put[self.attempt_of[key]]
                length = output[1] - skip
                assert 0 <= skip <= output[1]
                left = self.left.setdefault(key, [])
                assert not left or output[0] > left[-1][0][0], "out of order"
                left.append((output, skip))
                if self.unheard.get(key):
                    assert (output, pytest.approx(skip)) == self.unheard[key].pop(0)
                else:
                    assert skip == 0
                if length > 0:
                    self.interrupted.clear()
                self.sent[key] = self.sent.get(key, 0) + length
                begins = max(self.play_end.get(key, 0.0), self.latest, self.now)
                self.play_end[key] = begins + length
            case fx.HoldSending(key):
                assert key == self.audible
                assert not self.held
                self.held = True
            case fx.ReleaseSending(key):
                assert key == self.audible
                assert self.held
                self.held = False
            case fx.CancelReply(key):
                self.running.remove(key)
                self.cancelled.add(key)
            case fx.TellActivity(_, started):
                assert started is not self.talking, "activity begins or ends twice"
                self.talking = started
            case fx.TellInterruption(key, cause, heard):
                assert key == self.audible
                assert heard == pytest.approx(self.heard_of(key)), "not what was heard"
                self.stopped[key] = heard
                assert 0 <= heard <= self.sent.get(key, 0) + 1e-9, "heard more than was sent"
                # What is cut off is no longer held: it is over, or goes on as a reply of its own.
                self.audible, self.held = None, False
                if cause is fx.Cause.USER_SPEECH:
                    self.interrupted[key] = heard
            case fx.CompleteResponse(key):
                assert key not in self.completed, "a reply ended twice"
                self.completed.append(key)
            case fx.RecordTurn(key, status, heard):
                if key == self.corrected:
                    assert 0 <= heard < self.stopped.get(key, self.sent.get(key, 0))
                    assert key in self.recorded, "only what was written down is corrected"
                    self.stopped[key] = heard
                wanted = self.sent.get(key, 0) if status is fx.Status.FAILED else None
                assert heard == self.stopped.get(key, wanted), "history is not what was heard"
                self.recorded.add(key)
            case fx.RequestCall(reply, call):
                assert reply == self.audible, "a call for a reply that is not given"
                assert not self.held
                self.calls[call.call_id] = (self.attempt_of[reply], call.survives_interruption)
            case fx.CancelCalls(_, call_ids):
                for call_id in call_ids:
                    self.cancelled_calls[call_id] = self.calls.pop(call_id)
            case fx.DeliverResult(key, call):
                asked = self.calls.pop(call.call_id, None) or self.cancelled_calls[call.call_id]
                assert asked[0] == key
            case fx.WakeAt(at):
                self.wake = at

    def correct(self, number, heard):
        told = list(self.attempt_of)
        if not told:
            return
        key = told[max(0, len(told) - 1 - number)]
        if key == self.audible:
            self.told[key] = min(max(heard, 0.0), self.sent.get(key, 0.0))
        else:
            self.corrected = key
        self.feed(ev.CancelRequested(key.response_id, heard))
        self.corrected = None

    def heard_of(self, key):
        """What the client said that it played, or what plays since it left."""
        left = max(0.0, self.play_end.get(key, 0.0) - self.latest)
        return self.told.get(key, max(0.0, self.sent.get(key, 0) - left))

    def rest_of(self, key, heard):
        """What left of a reply and was not heard: outputs, and how much of each to skip."""
        position = 0.0
        for output, skip in self.left.get(key, []):
            length = output[1] - skip
            skipped = max(0.0, heard - position)
            if skipped < length:
                yield output, skip + skipped
            position += length

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
            assert self.utterance is None
        else:
            assert self.utterance is not None
            assert self.audible is None
            assert self.wake is not None, "a turn that nothing would end"
        assert state is State.USER_PAUSED or self.early is None, "speculation outside of a pause"
        assert len(self.running) <= 2
        replies = {self.audible, *self.interrupted}
        wanted = {self.early} | {self.attempt_of.get(each) for each in replies}
        assert self.running <= wanted, "work that nothing can come of"
        for attempt, survives in self.calls.values():
            ended = attempt in self.cancelled
            assert survives or not ended, "a call outlives its turn"
        for reply in self.attempt_of:
            assert reply in self.completed or reply == self.audible
        assert set(self.completed) == self.recorded
        if not self.held:
            assert not self.unheard.get(self.audible), "what was not heard is not repeated"
        else:
            assert self.wake is not None, "held for ever"

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
            case "full":
                self.feed(ev.UtteranceFull(self.utterance or "t0"))
            case "text":
                self.feed(ev.TextReceived("text"))
            case "note":
                self.feed(ev.TextNoted("text"))
            case "heard":
                self.correct(*given_)
            case "cancel":
                named = self.audible.response_id if given_[0] and self.audible else ""
                self.feed(ev.CancelRequested(named))
            case "words":
                self.feed(ev.WordsRecognized(self.utterance or "t0", given_[0]))
            case "score":
                self.feed(ev.TurnScored(self.utterance or "t0", given_[0]))
            case "echo":
                self.feed(ev.EchoJudged(given_[0]))
            case "basis":
                self.feed(ev.BasisChanged())
            case "queue":
                self.feed(ev.QueueMeasured(given_[0]))
            case "result":
                self.feed(ev.CallAnswered(f"c{self.number - given_[0]}", {}))
            case "tick":
                self.feed(ev.Tick())
            case "turn":
                steps = [(0, ("speech",)), (1, ("pause", 0.1)), (0.3, ("output", 0, given_[0]))]
                self.run([*steps, (0.4, ("output", 0, given_[0]))])
            case "cough":
                self.run([(0.1, ("speech",)), (0.4, ("pause", 0.0))])
                self.run(
                    [(0.6, ("output", 0, 1)) if given_[0] is None else (0, ("words", *given_))]
                )
            case "playback":
                keys = list(reversed(self.attempt_of))
                if given_[0] < len(keys):
                    self.reported.add(keys[given_[0]])
                    if keys[given_[0]] == self.audible:
                        self.report(self.audible, given_[1])
                    self.feed(ev.PlaybackReported(keys[given_[0]].response_id, *given_[1:]))
            case _ if given_[0] < len(self.attempts):
                self.act_as_attempt(kind, self.attempts[given_[0]], given_[1:])

    def act_as_attempt(self, kind, key, given_):
        match kind:
            case "output":
                self.number += 1
                output = (self.number, given_[0])
                if key in self.running:
                    self.put[key].append(output)
                self.feed(ev.ReplyProduced(key, output, given_[0]))
            case "call":
                self.number += 1
                call = Call(f"c{self.number}", "f", {}, given_[0], CALL_TIMEOUT)
                self.feed(ev.ReplyProduced(key, call))
            case "finish":
                self.running.discard(key)
                self.feed(ev.ReplyFinished(key))
            case "fail":
                self.running.discard(key)
                self.feed(ev.ReplyFailed(key, Problem(14, given_[0], "gone")))

    def report(self, key, offset):
        """Reports come twice and out of order: the furthest counts, as far as it was sent."""
        self.latest = max(self.latest, self.now)
        played = min(max(0.0, offset), self.sent.get(key, 0))
        self.told[key] = max(played, self.told.get(key, 0.0))

    def run(self, steps):
        for seconds, action in steps:
            self.pass_time(seconds)
            self.act(action)


@settings(max_examples=400, deadline=None)
@given(ANY_STEPS, RULES)
def test_invariants_hold_for_any_interleaving(steps, rules):
    World(rules).run(steps)


@settings(max_examples=200, deadline=None)
@given(ANY_STEPS, RULES)
def test_whatever_happened_the_conversation_comes_to_rest(steps, rules):
    world = World(rules)
    world.run(steps)
    for _ in range(40):
        world.feed(ev.SpeechStopped(world.now, 0.1))
        for key in tuple(world.running):
            world.running.discard(key)
            world.feed(ev.ReplyFinished(key))
        world.pass_time(30.0)
    assert world.controller.state is State.SILENCE
    assert world.controller.settled
    assert set(world.completed) == set(world.attempt_of)
    assert not world.calls, "a call that nobody answers or ends"
    assert not world.interrupted or world.audible is None
