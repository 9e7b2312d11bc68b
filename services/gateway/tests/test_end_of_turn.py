"""When a pause is taken for the end of a turn."""

from statistics import fmean

import numpy as np
import pytest
from gateway_fakes import fake_stages
from gateway_harness import running_gateway, silence, vowels
from gateway_talk import talking
from gateway_turn_stream import Stream, of
from hypothesis import given
from hypothesis import strategies as st
from parley.conversation.v1 import conversation_pb2 as pb
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.end_of_turn import (
    AdaptivePolicy,
    Pause,
    SemanticPolicy,
    SilencePolicy,
)
from parley_gateway.turns.replay import POLICIES, generate, replay

pytestmark = pytest.mark.unit

PROBABILITIES = st.floats(0, 1)
PAUSES = st.builds(Pause, PROBABILITIES, st.one_of(st.none(), PROBABILITIES))


def taught(policy, *pauses):
    for each in pauses:
        policy.learn(each)
    return policy


@given(st.lists(st.floats(0, 100)), PAUSES, st.floats(0, 5))
def test_whatever_was_learnt_delays_and_probabilities_stay_within_bounds(lessons, pause, passed):
    for inner in (SilencePolicy(0.8), taught(AdaptivePolicy(), *lessons)):
        for policy in (inner, SemanticPolicy(inner)):
            assert 0.3 <= policy.silence_needed(pause) <= 2.0
            assert 0 <= policy.probability(pause, passed) <= 1


def test_a_user_who_thinks_aloud_is_given_time_and_a_brisk_one_is_answered_sooner():
    untaught = AdaptivePolicy().silence_needed(Pause())
    slow = taught(AdaptivePolicy(), *[0.9, 1.1] * 5).silence_needed(Pause())
    brisk = taught(AdaptivePolicy(), *[0.25, 0.3] * 5).silence_needed(Pause())
    assert slow > 1.0 > untaught > brisk


def test_one_long_absence_does_not_spoil_what_was_learnt():
    policy = taught(AdaptivePolicy(), *[0.3] * 20)
    before = policy.silence_needed(Pause())
    assert taught(policy, 60.0).silence_needed(Pause()) < before + 1.0
    assert taught(policy, *[0.3] * 20).silence_needed(Pause()) == pytest.approx(before, abs=0.1)


def test_half_heard_speech_lengthens_the_wait():
    policy = AdaptivePolicy()
    assert policy.silence_needed(Pause(0.5)) > policy.silence_needed(Pause(0.0))


def test_words_that_are_finished_shorten_the_wait_and_others_lengthen_it():
    policy = SemanticPolicy(SilencePolicy(0.8))
    waits = [policy.silence_needed(Pause(score=each)) for each in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert waits == sorted(waits, reverse=True)
    assert (waits[0], waits[2], waits[-1]) == pytest.approx((2.0, 0.8, 0.3))
    assert policy.silence_needed(Pause()) == 0.8


def test_the_controller_teaches_its_policy_the_pauses_inside_turns():
    learnt = []

    class Noting(SilencePolicy):
        def learn(self, silence):
            learnt.append(silence)

    stream = Stream(end_of_turn=Noting(0.8))
    stream.tell(ev.SpeechStarted(0.0))
    stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    stream.tell(ev.SpeechStarted(1.6), after=0.3)
    stream.tell(ev.SpeechStopped(3.0, silence=0.2), after=1.2)
    stream.wait(2)
    assert learnt == [pytest.approx(0.5)]


def test_a_score_that_comes_during_the_pause_moves_its_end():
    stream = Stream(end_of_turn=SemanticPolicy(SilencePolicy(0.8)))
    stream.tell(ev.SpeechStarted(0.0))
    effects = stream.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    assert of(effects, fx.ScoreTurn) == [fx.ScoreTurn("t1")]
    assert stream.tell(ev.TurnScored("t0", 1.0), after=0.2) == []
    assert of(stream.tell(ev.TurnScored("t1", 1.0)), fx.StartReply)
    again = Stream(end_of_turn=SemanticPolicy(SilencePolicy(0.8)))
    again.tell(ev.SpeechStarted(0.0))
    again.tell(ev.SpeechStopped(1.0, silence=0.2), after=1.2)
    again.tell(ev.TurnScored("t1", 0.0), after=0.2)
    assert again.wait(1.5) == []
    assert of(again.wait(0.2), fx.StartReply)


def test_the_replay_is_repeatable_and_ranks_policies_that_know_more_above():
    speakers = generate(speakers=60, turns=30, seed=3)
    assert speakers == generate(speakers=60, turns=30, seed=3)
    _, _, _, learnt, semantic = (replay(policy, speakers) for policy in POLICIES.values())
    # At the dead air of the learning policy a fixed silence cuts more turns off.
    fixed = replay(lambda: SilencePolicy(fmean(learnt.dead_air)), speakers)
    assert learnt.cut_off < 0.8 * fixed.cut_off
    assert semantic.cut_off < learnt.cut_off
    assert fmean(semantic.dead_air) < fmean(learnt.dead_air)


def test_the_replay_counts_every_cut_off():
    patient = replay(lambda: SilencePolicy(1e9), generate(5, 5, 1))
    assert (patient.cut_off, patient.turns_cut) == (0.0, 0.0)
    assert replay(lambda: SilencePolicy(0.0), generate(5, 5, 1)).cut_off == 1.0


@pytest.mark.contract
async def test_the_chat_model_judges_the_turn_where_that_is_switched_on():
    turns = {"eagerness": "auto", "semantic_end_of_turn": True}
    async with (
        fake_stages() as stages,
        running_gateway(stages, turns=turns) as gateway,
        talking(gateway) as talk,
    ):
        complete = (await talk.until("setup_complete")).setup_complete
        assert complete.config.turn_policy.eagerness == pb.EAGERNESS_AUTO
        await talk.say(np.concatenate([silence(0.5), vowels(0.8), silence(0.3)]))
        await talk.until("response_completed")
    (judged,) = stages.chat.judged
    assert judged.sampling.max_output_tokens <= 4
    answered = stages.chat.requests[-1]
    assert judged.messages[:-1] == answered.messages[:-1]
    judged_ids, ids = (each.messages[-1].parts[0].audio.ids for each in (judged, answered))
    assert list(judged_ids) == list(ids[: len(judged_ids)])
