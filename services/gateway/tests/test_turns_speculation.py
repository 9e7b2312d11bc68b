"""Replies begun before the turn is known to have ended."""

import pytest
from gateway_turn_stream import PROBLEM, Stream, of
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.calls import Call
from parley_gateway.turns.controller import State
from parley_gateway.turns.effects import Decision, Status
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.rules import SpeculationRules

pytestmark = pytest.mark.unit

RULES = SpeculationRules(pause=0.3, max_tries=2, max_utterance=10.0, max_queue=0.3)


def key(revision, turn="t1"):
    return ReplyKey("s", turn, revision)


def speaking(**rules):
    stream = Stream(**{"speculation": RULES, **rules})
    stream.tell(ev.SpeechStarted(0.0))
    return stream


def pause(stream, after=1.2):
    return stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=after)


def decisions(effects):
    return [(each.decision, each.key.revision) for each in of(effects, fx.TellDecision)]


def test_a_reply_begins_at_the_pause_and_nothing_of_it_leaves_before_the_turn_has_ended():
    stream = speaking()
    assert decisions(pause(stream)) == [(Decision.HOLD, 0)]
    assert stream.wait(0.09) == []
    effects = stream.wait(0.02)
    assert decisions(effects) == [(Decision.SPECULATE, 0)]
    assert of(effects, fx.StartReply) == [
        fx.StartReply(key(0), None, pytest.approx(101.0), speculative=True)
    ]
    assert stream.reply(key(0), 2.0) == []
    effects = stream.wait(0.5)
    assert decisions(effects) == [(Decision.COMMIT, 0)]
    assert effects[1:] == [
        fx.CommitReply(key(0), pytest.approx(0.0, abs=0.02)),
        fx.Send(key(0), "audio"),
        fx.CompleteResponse(key(0), Status.COMPLETED),
        fx.RecordTurn(key(0), Status.COMPLETED, None),
    ]
    assert stream.state is State.BOT_REPLYING


def test_what_is_saved_is_the_part_of_the_wait_that_passed_before_the_commit():
    stream = speaking()
    pause(stream)
    stream.wait(0.1)
    stream.wait(0.35)
    stream.reply(key(0), 1.0)
    (commit,) = of(stream.wait(0.2), fx.CommitReply)
    assert commit.saved == pytest.approx(0.35, abs=0.01)
    slow = speaking()
    pause(slow)
    (commit,) = of(slow.wait(0.7), fx.CommitReply)
    assert commit.saved == pytest.approx(0.5, abs=0.01)


def test_a_user_who_goes_on_discards_it_and_the_next_pause_begins_another():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    effects = stream.tell(ev.SpeechStarted(2.0))
    assert effects[:2] == [fx.CancelReply(key(0)), fx.DiscardReply(key(0))]
    assert decisions(effects) == [(Decision.REOPEN, 0)]
    assert stream.state is State.USER_SPEAKING
    assert stream.reply(key(0), 1.0) == [fx.DropStale(key(0))] * 2
    pause(stream)
    assert decisions(stream.wait(0.2)) == [(Decision.SPECULATE, 1)]


def test_one_that_is_made_already_is_discarded_without_being_cancelled():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    stream.reply(key(0), 1.0)
    assert of(stream.tell(ev.SpeechStarted(2.0)), fx.CancelReply) == []


def test_tries_are_bounded_and_the_turn_is_still_answered():
    stream = speaking()
    for _ in range(2):
        pause(stream)
        assert of(stream.wait(0.2), fx.StartReply)
        stream.tell(ev.SpeechStarted(2.0))
    pause(stream)
    assert stream.wait(0.5) == []
    (start,) = of(stream.wait(0.2), fx.StartReply)
    assert (start.key, start.speculative) == (key(2), False)


@pytest.mark.parametrize(
    "event", [ev.QueueMeasured(0.4), None], ids=["the chat stage is busy", "the turn is long"]
)
def test_nothing_is_begun_early_when(event):
    stream = speaking()
    if event:
        stream.tell(event)
        pause(stream)
    else:
        pause(stream, after=12.0)
    (start,) = of(stream.wait(1.0), fx.StartReply)
    assert not start.speculative


def test_a_change_of_the_basis_begins_it_anew():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    effects = stream.tell(ev.BasisChanged())
    assert effects[:2] == [fx.CancelReply(key(0)), fx.DiscardReply(key(0))]
    assert of(effects, fx.StartReply)[0].key == key(1)
    (commit,) = of(stream.wait(1.0), fx.CommitReply)
    assert commit.key == key(1)


def test_one_that_fails_costs_nothing_but_is_not_tried_again_before_the_turn_has_ended():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    assert stream.tell(ev.ReplyFailed(key(0), PROBLEM)) == [fx.DiscardReply(key(0))]
    assert stream.wait(0.2) == []
    (start,) = of(stream.wait(0.5), fx.StartReply)
    assert (start.key, start.speculative) == (key(1), False)


def test_no_function_is_called_for_a_turn_that_may_go_on():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    call = Call("c1", "weather", {})
    assert stream.tell(ev.ReplyProduced(key(0), call)) == []
    assert of(stream.wait(0.5), fx.RequestCall) == [fx.RequestCall(key(0), call)]


def test_the_end_of_the_audio_commits_what_was_begun():
    stream = speaking()
    pause(stream)
    stream.wait(0.2)
    assert of(stream.tell(ev.AudioEnded(2.0)), fx.CommitReply)
