"""The turn controller on a virtual clock."""

import pytest
from gateway_turn_stream import PROBLEM, Stream, kinds, of
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.controller import State
from parley_gateway.turns.effects import Cause, Decision, Status
from parley_gateway.turns.end_of_turn import SilencePolicy
from parley_gateway.turns.playback import REPORT_GRACE
from parley_gateway.turns.rules import SpeculationRules, TurnRules

pytestmark = pytest.mark.unit


def test_a_turn_runs_from_silence_to_silence():
    stream = Stream()
    effects = stream.tell(ev.SpeechStarted(3.0))
    assert effects == [fx.OpenUtterance("t1", 3.0), fx.TellActivity("t1", True, 3.0)]
    assert stream.state is State.USER_SPEAKING
    effects = stream.tell(ev.SpeechStopped(4.0, silence=0.2), after=1.2)
    assert stream.state is State.USER_PAUSED
    assert effects[0] == fx.TellActivity("t1", False, 4.0)
    assert effects[1].decision is Decision.HOLD
    assert stream.wait(0.59) == []
    decision, start = stream.wait(0.02)
    assert decision.decision is Decision.COMMIT
    assert start == fx.StartReply(decision.key, None, pytest.approx(101.0))
    assert stream.state is State.BOT_REPLYING
    key = start.key
    assert (key.session, key.turn_id, key.revision) == ("s", "t1", 0)
    assert stream.reply(key, 2.0) == [
        fx.Send(key, "audio"),
        fx.CompleteResponse(key, Status.COMPLETED),
        fx.RecordTurn(key, Status.COMPLETED, None),
    ]
    assert stream.wait(1.9) == []
    assert stream.state is State.BOT_REPLYING
    stream.wait(0.2)
    assert stream.state is State.SILENCE


def test_a_pause_shorter_than_the_silence_is_part_of_the_turn():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    stream.wait(0.5)
    assert stream.tell(ev.SpeechStarted(1.9)) == [fx.TellActivity("t1", True, 1.9)]
    assert stream.state is State.USER_SPEAKING
    assert stream.wait(5) == []


def test_speech_longer_than_a_backchannel_interrupts_and_is_heard_from_its_start():
    stream = Stream(interruption_speech=0.3)
    key = stream.say_something()
    stream.reply(key, 10.0, done=False)
    stream.tell(ev.SpeechStarted(20.0), after=2.0)
    effects = stream.wait(0.3)
    assert effects == [
        fx.TellInterruption(key, Cause.USER_SPEECH, pytest.approx(2.3)),
        fx.CompleteResponse(key, Status.INTERRUPTED),
        fx.RecordTurn(key, Status.INTERRUPTED, pytest.approx(2.3)),
        fx.OpenUtterance("t2", 20.0),
    ]
    assert stream.state is State.USER_SPEAKING
    assert stream.wait(0.3) == [fx.CancelReply(key)]
    assert stream.reply(key, 1.0) == [fx.DropStale(key), fx.DropStale(key)]


def test_a_backchannel_does_not_interrupt():
    stream = Stream(interruption_speech=0.3)
    key = stream.say_something()
    stream.reply(key, 10.0, done=False)
    stream.tell(ev.SpeechStarted(20.0), after=2.0)
    stream.tell(ev.SpeechStopped(20.2, silence=0.05), after=0.25)
    assert stream.wait(3) == []
    assert stream.state is State.BOT_REPLYING
    assert of(stream.reply(key, 1.0), fx.Send)


def test_without_interruption_the_user_is_heard_when_the_reply_was_played():
    stream = Stream(interruption=False)
    key = stream.say_something()
    stream.reply(key, 3.0)
    stream.tell(ev.SpeechStarted(20.0), after=1.0)
    assert stream.wait(1.9) == []
    assert stream.wait(0.2) == [fx.OpenUtterance("t2", 20.0)]
    assert stream.state is State.USER_SPEAKING


def test_an_interruption_of_what_is_generated_but_still_plays_completes_nothing_twice():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0)
    stream.tell(ev.SpeechStarted(20.0), after=1.0)
    assert kinds(stream.wait(0.5)) == [fx.TellInterruption, fx.RecordTurn, fx.OpenUtterance]


@pytest.mark.parametrize("response_id", ["", "t1.0"])
def test_a_cancelled_response_ends_in_silence(response_id):
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0, done=False)
    effects = stream.tell(ev.CancelRequested(response_id), after=1.0)
    assert effects == [
        fx.CancelReply(key),
        fx.TellInterruption(key, Cause.CLIENT_CANCELLED, pytest.approx(1.0)),
        fx.CompleteResponse(key, Status.CANCELLED),
        fx.RecordTurn(key, Status.CANCELLED, pytest.approx(1.0)),
    ]
    assert stream.state is State.SILENCE


def test_a_client_that_cancels_says_what_was_heard_and_it_counts():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0, done=False)
    stream.tell(ev.PlaybackReported(key.response_id, 1.5, False), after=2.0)
    effects = stream.tell(ev.CancelRequested(key.response_id, 0.7))
    assert of(effects, fx.RecordTurn) == [fx.RecordTurn(key, Status.CANCELLED, 0.7)]


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (lambda stream: stream.tell(ev.TextReceived("stop"), after=2.0), Status.INTERRUPTED),
        (lambda stream: stream.tell(ev.CancelRequested(""), after=2.0), Status.CANCELLED),
        (lambda stream: stream.wait(6.0), Status.INTERRUPTED),
    ],
)
def test_what_was_heard_of_the_last_reply_is_cut_afterwards_but_never_made_longer(ended, status):
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0)
    ended(stream)
    corrected = fx.RecordTurn(key, status, 0.5)
    assert stream.tell(ev.CancelRequested(key.response_id, 0.5)) == [corrected]
    assert stream.tell(ev.CancelRequested(key.response_id, 3.0)) == []
    (notice,) = stream.tell(ev.CancelRequested(key.response_id))
    assert notice.problem.reason == "RESPONSE_NOT_ACTIVE"


def test_a_reply_before_the_last_is_not_cut_any_more():
    stream = Stream()
    first = stream.say_something()
    stream.reply(first, 1.0)
    stream.wait(2.0)
    second = stream.say_something()
    stream.reply(second, 1.0)
    stream.wait(2.0)
    (notice,) = stream.tell(ev.CancelRequested(first.response_id, 0.5))
    assert notice.problem.reason == "RESPONSE_NOT_ACTIVE"


def test_cancelling_what_is_not_is_told():
    stream = Stream()
    (notice,) = stream.tell(ev.CancelRequested("t9.0"))
    assert notice.problem.reason == "RESPONSE_NOT_ACTIVE"


def test_a_reply_that_fails_ends_its_turn_once_what_was_sent_is_played():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 2.0, done=False)
    assert stream.tell(ev.ReplyFailed(key, PROBLEM)) == [
        fx.CompleteResponse(key, Status.FAILED, PROBLEM),
        fx.RecordTurn(key, Status.FAILED, 2.0),
    ]
    stream.wait(2.1)
    assert stream.state is State.SILENCE


def test_a_reply_without_sound_gives_the_floor_back_at_once():
    stream = Stream()
    key = stream.say_something()
    stream.tell(ev.ReplyFailed(key, PROBLEM))
    assert stream.state is State.SILENCE


def test_text_in_silence_is_answered_at_once():
    stream = Stream()
    decision, start = stream.tell(ev.TextReceived("hello"))
    assert decision.decision is Decision.COMMIT
    assert (start.text, start.key.turn_id) == ("hello", "t1")


def test_a_text_to_be_remembered_is_a_turn_that_nobody_answers_and_changes_what_answers_build_on():
    stream = Stream(speculation=SpeculationRules(pause=0.4))
    stream.tell(ev.SpeechStarted(0.0))
    stream.tell(ev.SpeechStopped(1.0, silence=0.3), after=1.2)
    (early,) = of(stream.wait(0.2), fx.StartReply)
    noted = stream.tell(ev.TextNoted("My name is Bob."))
    assert noted[0] == fx.NoteText("t2", "My name is Bob.")
    assert of(noted, fx.DiscardReply) == [fx.DiscardReply(early.key)]
    assert stream.state is State.USER_PAUSED


def test_text_cuts_a_reply_off():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0, done=False)
    effects = stream.tell(ev.TextReceived("stop"), after=1.0)
    assert of(effects, fx.TellInterruption)[0].cause is Cause.USER_TEXT
    assert of(effects, fx.StartReply)[0].text == "stop"


def test_text_while_the_user_speaks_waits_for_the_spoken_turn():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    assert stream.tell(ev.TextReceived("also this")) == []
    stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    (spoken,) = of(stream.wait(1), fx.StartReply)
    stream.reply(spoken.key, 0.5)
    assert not stream.controller.settled
    (written,) = of(stream.wait(1), fx.StartReply)
    assert (spoken.text, written.text) == (None, "also this")


def test_texts_that_wait_are_bounded_and_what_is_dropped_is_told():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    effects = [each for n in range(10) for each in stream.tell(ev.TextReceived(str(n)))]
    assert [each.problem.reason for each in effects] == ["TEXT_QUEUE_FULL"] * 2


def test_manual_activity_commits_without_waiting():
    stream = Stream()
    stream.tell(ev.ActivityStarted(0.0))
    effects = stream.tell(ev.ActivityEnded(2.0), after=2.0)
    assert of(effects, fx.StartReply)


def test_manual_activity_interrupts_at_once():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 5.0, done=False)
    effects = stream.tell(ev.ActivityStarted(9.0), after=1.0)
    assert of(effects, fx.TellInterruption)
    assert stream.state is State.USER_SPEAKING


def test_the_end_of_the_audio_ends_the_turn():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    assert of(stream.tell(ev.AudioEnded(1.0), after=1.0), fx.StartReply)


def test_an_endless_utterance_is_answered_and_does_not_interrupt_its_own_answer():
    stream = Stream(max_utterance=30.0)
    stream.tell(ev.SpeechStarted(0.0))
    effects = stream.wait(31)
    assert of(effects, fx.TellNotice)[0].problem.reason == "UTTERANCE_TOO_LONG"
    (start,) = of(effects, fx.StartReply)
    stream.reply(start.key, 2.0)
    assert stream.wait(10) == []
    assert stream.state is State.SILENCE


def test_an_utterance_that_is_full_before_its_time_is_answered_and_an_earlier_ones_is_not():
    stream = Stream()
    (turn,) = of(stream.tell(ev.SpeechStarted(0.0)), fx.OpenUtterance)
    assert stream.tell(ev.UtteranceFull("another")) == []
    effects = stream.tell(ev.UtteranceFull(turn.turn_id))
    assert of(effects, fx.TellNotice)[0].problem.reason == "UTTERANCE_TOO_LONG"
    assert len(of(effects, fx.StartReply)) == 1


def test_heard_is_what_the_client_reports_however_the_reports_come():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 10.0, done=False)
    for offset in (0.5, 1.5, 1.5, 0.7, -3.0):
        stream.tell(ev.PlaybackReported(key.response_id, offset, False), after=1.0)
    stream.tell(ev.PlaybackReported("t0.0", 9.0, True))
    effects = stream.tell(ev.CancelRequested(""))
    assert of(effects, fx.TellInterruption)[0].heard == 1.5


def test_a_report_beyond_what_was_sent_counts_as_all_of_it():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 2.0, done=False)
    stream.tell(ev.PlaybackReported(key.response_id, 99.0, False))
    assert of(stream.tell(ev.CancelRequested("")), fx.RecordTurn)[0].heard == 2.0


def test_a_client_that_reports_its_end_gives_the_floor_back_early():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 10.0)
    stream.tell(ev.PlaybackReported(key.response_id, 4.0, True), after=4.0)
    assert stream.state is State.SILENCE


def test_a_client_that_stops_reporting_is_not_waited_for_for_ever():
    stream = Stream()
    key = stream.say_something()
    stream.reply(key, 3.0)
    stream.tell(ev.PlaybackReported(key.response_id, 1.0, False), after=1.0)
    stream.wait(2.0 + REPORT_GRACE - 0.01)
    assert stream.state is State.BOT_REPLYING
    stream.wait(0.02)
    assert stream.state is State.SILENCE


def test_new_rules_count_from_the_next_event_on():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    stream.controller.rules = TurnRules(SilencePolicy(0.1))
    effects = stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    assert of(effects, fx.StartReply)


def test_a_clock_that_jumps_back_is_held():
    stream = Stream()
    stream.tell(ev.SpeechStarted(0.0))
    stream.now -= 1000
    stream.tell(ev.SpeechStopped(1.0, silence=0.2))
    stream.now += 1000
    assert of(stream.wait(1.0), fx.StartReply)
