"""Sounds of the user during a reply: backchannels, echoes, and interruptions that were none."""

import pytest
from gateway_turn_stream import PROBLEM, Stream, of
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.calls import Call
from parley_gateway.turns.controller import State
from parley_gateway.turns.effects import Cause, Status
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.problem import Problem

pytestmark = pytest.mark.unit


def replying(seconds=10.0, *, done=False, **rules):
    stream = Stream(**rules)
    key = stream.say_something()
    stream.reply(key, seconds, done=done)
    return stream, key


def cough(stream, length=0.4):
    """Speech long enough to interrupt, too short to be sure of."""
    effects = stream.tell(ev.SpeechStarted(20.0), after=2.0)
    effects += stream.wait(length)
    return effects + stream.tell(ev.SpeechStopped(20.4, silence=0.0))


def test_sending_is_held_at_the_onset_and_goes_on_after_a_backchannel():
    stream, key = replying()
    effects = stream.tell(ev.SpeechStarted(20.0), after=2.0)
    assert effects[0] == fx.HoldSending(key)
    assert stream.reply(key, 1.0, done=True) == []
    effects = stream.tell(ev.SpeechStopped(20.2), after=0.2)
    assert effects[1:] == [
        fx.ReleaseSending(key),
        fx.Send(key, "audio"),
        fx.CompleteResponse(key, Status.COMPLETED),
        fx.RecordTurn(key, Status.COMPLETED, None),
    ]
    assert stream.state is State.BOT_REPLYING


def test_an_interruption_without_words_lets_the_reply_go_on_where_its_playback_stood():
    stream, key = replying(1.0)
    for _ in range(9):
        stream.reply(key, 1.0, done=False)
    effects = cough(stream)
    assert of(effects, fx.TellInterruption)[0].heard == pytest.approx(2.3)
    assert of(effects, fx.CancelReply) == []
    assert of(effects, fx.RecognizeWords) == [fx.RecognizeWords("t2")]
    stream.reply(key, 1.0, done=False)
    again = ReplyKey("s", "t1", 1)
    effects = stream.tell(ev.WordsRecognized("t2", " "))
    assert effects[:2] == [
        fx.DropUtterance("t2"),
        fx.ResumeReply(again, key, pytest.approx(2.3)),
    ]
    sent = of(effects, fx.Send)
    assert [each.key for each in sent] == [again] * 9
    assert sent[0].skip == pytest.approx(0.3)
    assert {each.skip for each in sent[1:]} == {0.0}
    assert stream.state is State.BOT_REPLYING
    effects = stream.reply(key, 1.0)
    assert of(effects, fx.Send) == [fx.Send(again, "audio")]
    assert of(effects, fx.CompleteResponse) == [fx.CompleteResponse(again, Status.COMPLETED)]


@pytest.mark.parametrize(("speech", "asks"), [(0.45, True), (0.65, False)])
def test_the_silence_before_a_pause_is_told_is_no_speech(speech, asks):
    """A hum of 0.45 s is 0.64 s old when the detector says that it is over."""
    stream, key = replying(pause_told_after=0.19)
    effects = stream.tell(ev.SpeechStarted(20.0), after=2.0) + stream.wait(speech + 0.19)
    effects += stream.tell(ev.SpeechStopped(20.0 + speech, silence=0.19))
    assert (of(effects, fx.RecognizeWords) == [fx.RecognizeWords("t2")]) is asks
    assert (of(effects, fx.CancelReply) == [fx.CancelReply(key)]) is not asks


def test_words_make_it_an_interruption():
    stream, key = replying()
    cough(stream)
    assert stream.tell(ev.WordsRecognized("t2", "stop")) == [fx.CancelReply(key)]
    (start,) = of(stream.wait(0.9), fx.StartReply)
    assert start.key.turn_id == "t2"


def test_words_of_another_turn_or_pause_change_nothing():
    stream, _ = replying()
    cough(stream)
    assert stream.tell(ev.WordsRecognized("t1", "")) == []
    stream.tell(ev.SpeechStarted(21.0))
    assert stream.tell(ev.WordsRecognized("t2", "")) == []
    assert stream.state is State.USER_SPEAKING


def test_the_end_of_the_turn_waits_for_the_words_but_not_for_ever():
    stream, _ = replying(end_of_turn=Stream().controller.rules.end_of_turn, words_wait=1.5)
    cough(stream)
    assert stream.wait(1.4) == []
    assert of(stream.wait(0.2), fx.StartReply)


def test_a_turn_that_was_not_even_speech_gives_the_floor_back_to_the_reply():
    stream, key = replying()
    cough(stream)
    (start,) = of(stream.wait(0.9), fx.StartReply)
    no_speech = Problem(9, "NO_SPEECH", "nothing")
    effects = stream.tell(ev.ReplyFailed(start.key, no_speech))
    assert of(effects, fx.CompleteResponse) == [
        fx.CompleteResponse(start.key, Status.FAILED, no_speech)
    ]
    assert of(effects, fx.ResumeReply)[0].before == key
    assert stream.state is State.BOT_REPLYING


def test_once_the_next_reply_is_heard_the_last_one_is_over():
    stream, key = replying()
    cough(stream)
    (start,) = of(stream.wait(0.9), fx.StartReply)
    assert of(stream.reply(start.key, 1.0, done=False), fx.CancelReply) == [fx.CancelReply(key)]
    stream.tell(ev.ReplyFailed(start.key, PROBLEM))
    stream.wait(2)
    assert stream.state is State.SILENCE


def test_a_second_interruption_of_a_reply_that_went_on_counts_from_its_own_start():
    stream, _ = replying()
    cough(stream)
    stream.tell(ev.WordsRecognized("t2", ""))
    effects = cough(stream)
    assert of(effects, fx.TellInterruption) == [
        fx.TellInterruption(ReplyKey("s", "t1", 1), Cause.USER_SPEECH, pytest.approx(2.3))
    ]
    (resumed,) = of(stream.tell(ev.WordsRecognized("t3", "")), fx.ResumeReply)
    assert resumed.key == ReplyKey("s", "t1", 2)


def test_the_echo_of_the_reply_is_no_interruption_however_long_it_lasts():
    stream, key = replying()
    stream.tell(ev.SpeechStarted(20.0), after=2.0)
    assert stream.tell(ev.EchoJudged(True), after=0.25) == [fx.ReleaseSending(key)]
    assert stream.wait(3) == []
    effects = stream.tell(ev.EchoJudged(False))
    assert effects == [fx.HoldSending(key)]
    assert of(stream.wait(0.3), fx.TellInterruption)


def test_an_echo_found_late_lets_the_reply_go_on():
    stream, key = replying()
    stream.tell(ev.SpeechStarted(20.0), after=2.0)
    stream.wait(0.4)
    effects = stream.tell(ev.EchoJudged(True))
    assert of(effects, fx.ResumeReply)[0].before == key


def test_an_echo_that_outlasts_the_reply_begins_no_turn():
    stream, _ = replying(3.0, done=True)
    stream.tell(ev.SpeechStarted(20.0), after=2.0)
    stream.tell(ev.EchoJudged(True), after=0.1)
    stream.wait(2)
    assert stream.state is State.SILENCE


def call_open(stream, key, *, survives=False, timeout=5.0):
    call = Call("c1", "weather", {}, survives, timeout)
    assert of(stream.tell(ev.ReplyProduced(key, call)), fx.RequestCall)
    return call


def test_a_call_is_answered_once():
    stream, key = replying()
    call = call_open(stream, key)
    assert stream.tell(ev.CallAnswered("c1", 7)) == [fx.DeliverResult(key, call, 7)]
    (notice,) = stream.tell(ev.CallAnswered("c1", 7))
    assert notice.problem.reason == "CALL_UNKNOWN"


def test_a_call_that_is_not_answered_in_time_is_answered_with_an_error():
    stream, key = replying()
    call_open(stream, key)
    cancel, deliver = stream.wait(5.1)
    assert cancel.call_ids == ("c1",)
    assert "error" in deliver.output


def test_a_call_ends_with_its_turn_unless_it_survives():
    for survives in (False, True):
        stream, key = replying()
        call_open(stream, key, survives=survives)
        effects = stream.tell(ev.SpeechStarted(20.0), after=1.0) + stream.wait(1.0)
        assert bool(of(effects, fx.CancelCalls)) is not survives
        assert bool(of(stream.tell(ev.CallAnswered("c1", 7)), fx.DeliverResult)) is survives


def test_a_call_goes_on_with_a_reply_that_goes_on():
    stream, key = replying()
    call = call_open(stream, key)
    assert of(cough(stream), fx.CancelCalls) == []
    stream.tell(ev.WordsRecognized("t2", ""))
    assert stream.tell(ev.CallAnswered("c1", 7)) == [fx.DeliverResult(key, call, 7)]
