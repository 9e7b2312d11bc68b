"""Speculation and false alarms against a live gateway, fake stages and real activity detection."""

import numpy as np
import pytest
from gateway_fakes import Fault, answer_to, fake_stages
from gateway_harness import running_gateway, silence, vowels
from gateway_talk import config, talking
from parley.context.v1 import context_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_gateway.session_metrics import SPECULATIONS

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED
SPECULATE, COMMIT = pb.TURN_DECISION_TYPE_SPECULATE, pb.TURN_DECISION_TYPE_COMMIT
REOPEN = pb.TURN_DECISION_TYPE_REOPEN
BEGINNING = np.concatenate([silence(0.5), vowels(0.8), silence(0.3)])


def patient(seconds=1, **policy):
    """A turn ends so long, by the clock, after it paused: what must come before has that long."""
    return config(end_of_turn_silence={"seconds": seconds}, **policy)


async def decided(talk, wanted):
    while (await talk.until("turn_decision")).turn_decision.type != wanted:
        pass
    return talk.seen[-1]


def outcomes(*names):
    return [SPECULATIONS.labels(name)._value.get() for name in names]


async def test_a_reply_that_was_begun_early_plays_at_the_commit_and_is_made_once(gateway):
    before = outcomes("started", "committed")
    async with talking(gateway, config=patient()) as talk:
        await talk.say(BEGINNING)
        begun = await decided(talk, SPECULATE)
        committed = await decided(talk, COMMIT)
        assert talk.kinds()[2:] == ["speech_activity"] * 2 + ["turn_decision"] * 3
        done = await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    assert begun.turn_decision.revision == committed.turn_decision.revision == 0
    (started,) = [e.response_started for e in talk.seen if e.HasField("response_started")]
    assert started.speculative
    assert gateway.stages.chat.calls == 1
    assert outcomes("started", "committed") == [each + 1 for each in before]
    text = "".join(each.text_delta.text for each in talk.seen)
    assert text == answer_to(gateway.stages.chat.requests[0].messages)
    session = talk.seen[0].setup_complete.session
    (turn,) = gateway.stages.context.turns[session].values()
    assert (turn.heard_text, turn.status) == (text, context_pb2.TURN_STATUS_COMPLETED)
    assert "user_transcript" in talk.kinds()
    # Everything was made before the turn was known to have ended, and leaves right after.
    latency = done.response_completed.latency
    assert latency.time_to_first_audio.ToMilliseconds() < 50
    chat = next(each for each in latency.stages if each.stage == "chat")
    assert chat.end_offset.ToNanoseconds() < 0


async def test_a_user_who_goes_on_is_answered_as_a_whole_and_nothing_of_the_first_is_left(gateway):
    gateway.stages.chat.gate.clear()
    async with talking(gateway, config=patient(seconds=4)) as talk:
        await talk.say(BEGINNING)
        await decided(talk, SPECULATE)
        while not gateway.stages.tts.running:
            await talk.say(silence(0.02))
        await talk.say(vowels(0.6))
        assert (await decided(talk, REOPEN)).turn_decision.revision == 0
        await gateway.stages.idle_but("tokenizer")
        gateway.stages.chat.gate.set()
        await talk.say(silence(0.3))
        done = await talk.until("response_completed")
        assert done.response_id.endswith(".1")
        session = talk.seen[0].setup_complete.session
        (turn,) = gateway.stages.context.turns[session].values()
    assert turn.user_audio_duration.ToNanoseconds() > 1.9e9
    assert gateway.stages.tokenizer.flushes[:2] == [False, False]
    assert len({each.turn_id for each in talk.seen if each.turn_id}) == 1
    told = [each for each in talk.seen if each.HasField("text_delta")]
    assert {each.response_id for each in told} == {done.response_id}


async def test_an_early_reply_that_fails_is_made_again_after_the_end_of_the_turn(gateway):
    gateway.stages.chat.faults += [Fault(after=True)]
    async with talking(gateway, config=patient()) as talk:
        await talk.say(BEGINNING)
        await decided(talk, SPECULATE)
        done = await talk.until("response_completed")
    assert done.response_completed.status == COMPLETED
    assert gateway.stages.chat.calls == 2


async def test_an_early_reply_is_made_of_the_kept_audio_though_the_tokenizer_died_before(gateway):
    gateway.stages.tokenizer.faults += [Fault(after=True)]
    async with talking(gateway, config=patient()) as talk:
        await talk.say(BEGINNING)
        await gateway.stages.idle()
        await talk.say(silence(0.1))
        await decided(talk, SPECULATE)
        done = await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    assert done.response_completed.status == COMPLETED
    (started,) = [e.response_started for e in talk.seen if e.HasField("response_started")]
    assert started.speculative


async def test_without_speculation_nothing_is_begun_early(gateway):
    async with talking(gateway, config=patient(no_speculation=True)) as talk:
        complete = (await talk.until("setup_complete")).setup_complete
        assert not complete.capabilities.speculation
        await talk.say(BEGINNING)
        await talk.until("response_completed")
    decisions = [e.turn_decision.type for e in talk.seen if e.HasField("turn_decision")]
    assert SPECULATE not in decisions


async def test_a_gateway_that_does_not_speculate_says_so():
    async with (
        fake_stages() as stages,
        running_gateway(stages, turns={"speculation": {"enabled": False}}) as gateway,
        talking(gateway) as talk,
    ):
        complete = (await talk.until("setup_complete")).setup_complete
    assert not complete.capabilities.speculation
    assert complete.config.turn_policy.no_speculation


@pytest.mark.parametrize("made", [True, False], ids=["reply is made", "reply is being made"])
async def test_a_cough_stops_the_reply_and_lets_it_go_on_where_it_was(gateway, made):
    gateway.stages.tts.groups = 40
    gateway.stages.context.words = ""
    if not made:
        gateway.stages.chat.gate.clear()
    async with talking(gateway, config=config()) as talk:
        await talk.write("tell me a story")
        first = await talk.until("response_completed" if made else "audio")
        seconds = 7 if made else 2
        await talk.send(
            playback=pb.PlaybackProgress(
                response_id=first.response_id, played_offset={"seconds": seconds}
            )
        )
        await talk.say(vowels(0.4))
        heard = (await talk.until("interruption")).interruption.heard_text
        await talk.say(silence(0.4))
        again = await talk.until("response_started")
        assert again.turn_id == first.turn_id
        gateway.stages.chat.gate.set()
        if made:
            await talk.until("response_completed")
        else:
            while talk.seen[-1].response_id != again.response_id:
                await talk.until("response_completed")
        session = talk.seen[0].setup_complete.session
        await talk.call.done_writing()
        await talk.rest()
    later = [each for each in talk.seen if each.response_id == again.response_id]
    sound = [each.audio for each in later if each.HasField("audio")]
    assert sound[0].start_offset.ToNanoseconds() == 0
    ends = [each.start_offset.ToNanoseconds() + each.duration.ToNanoseconds() for each in sound]
    begins = [each.start_offset.ToNanoseconds() for each in sound]
    assert begins[1:] == pytest.approx(ends[:-1], abs=2)
    whole = answer_to(gateway.stages.chat.requests[-1].messages)
    assert heard + "".join(each.text_delta.text for each in later) == whole
    usage = later[-1].response_completed.usage
    assert ends[-1] / 1e9 == pytest.approx(
        usage.audio_duration.ToNanoseconds() / 1e9 - seconds, abs=0.01
    )
    (turn,) = gateway.stages.context.turns[session].values()
    assert (turn.heard_text, turn.status) == (whole, context_pb2.TURN_STATUS_COMPLETED)
