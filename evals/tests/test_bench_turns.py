"""The arithmetic of the turn-taking bench; nothing here is timed."""

import math

import numpy as np
import pytest
from parley.conversation.v1 import conversation_pb2 as pb
from parley_evals.bench_turns.figures import (
    Conversation,
    Reply,
    barge_ins,
    quantile,
    saved,
    turn_taking,
)
from parley_evals.bench_turns.frames import (
    FRAME,
    MAX_FRAMES,
    mark_frames,
    read_frames,
    read_stamp,
    stamp,
)
from parley_evals.bench_turns.load import Caller, Plan, audio_prefix, setup
from parley_evals.bench_turns.pipecat import first_sounds
from parley_evals.bench_turns.runs import conversation, to_client
from parley_evals.bench_turns.speech import SpokenTurn, User, make_interrupter, make_user

pytestmark = pytest.mark.unit

TURNS = (SpokenTurn(1.0, 3.0), SpokenTurn(9.0, 10.0))


def test_quantiles_are_values_that_were_measured():
    assert [quantile([3, 1, 2], share) for share in (0.0, 0.5, 0.99)] == [1, 2, 3]
    assert quantile(list(range(100)), 0.99) == 98
    assert math.isnan(quantile([], 0.5))


def test_gaps_count_from_the_labelled_end_and_early_answers_are_cut_offs():
    early = Reply(committed=2.0, audio=(2.1,))
    late = Reply(committed=3.5, audio=(3.8, 4.0), speculative=True)
    found = turn_taking(
        [
            Conversation(TURNS, (early, late), speculations=(1.5, 3.2)),
            Conversation(TURNS, (late, Reply(10.5, audio=(11.0,))), speculations=(3.2,)),
            Conversation(TURNS, (Reply(3.5),)),
        ]
    )
    assert found.gaps == {(1, 0): pytest.approx(0.8), (1, 1): pytest.approx(1.0)}
    assert (found.cut_off, found.unanswered, found.turns) == (1, 3, 6)
    assert (found.begun, found.committed) == (3, 2)
    assert found.committed_share == pytest.approx(2 / 3)
    assert math.isnan(turn_taking([]).committed_share)


def test_savings_compare_the_same_turns_only():
    without = turn_taking([Conversation(TURNS, (Reply(3.5, audio=(4.0,)), Reply(11, audio=(12,))))])
    with_it = turn_taking([Conversation(TURNS, (Reply(3.5, audio=(3.7,)),))])
    assert saved(without, with_it) == pytest.approx(0.3)
    assert math.isnan(saved(without, turn_taking([])))


def test_a_barge_in_counts_only_where_there_was_something_to_stop():
    cut = Reply(3.5, audio=(4.0, 9.08), interrupted=9.4)
    before = Reply(3.5, audio=(4.0,), interrupted=9.4)
    generated = Reply(3.5, audio=(4.0,), completed=5.0, interrupted=9.4)
    whole = Reply(3.5, audio=(4.0, 5.0), completed=5.0)
    last, told = barge_ins(
        [Conversation(TURNS, (each,)) for each in (cut, before, generated, whole)]
    )
    assert last == [pytest.approx(0.08), 0.0]
    assert told == [pytest.approx(0.4)] * 2


def test_frames_are_found_again_by_session_and_number():
    pcm = mark_frames(np.full(FRAME * 130, 1000, np.int16), 199)
    content = pcm.astype("<i2").tobytes()
    assert read_frames(content[: 2 * FRAME]) == [(199, 0)]
    assert read_frames(content) == [(199, number) for number in range(130)]
    assert read_frames(content[2:]) == []
    assert read_frames(np.full(FRAME, 1000, "<i2").tobytes()) == []
    assert np.abs(pcm.reshape(-1, FRAME)[:, :4]).max() <= 100
    with pytest.raises(ValueError, match="cannot be marked"):
        mark_frames(np.zeros(FRAME * (MAX_FRAMES + 1), np.int16), 0)


def test_a_stamp_survives_pcm_to_the_microsecond():
    samples = np.zeros(100, np.float32)
    stamp(samples, 123456.789012)
    pcm = np.rint(samples * 32768).astype("<i2").tobytes()
    assert read_stamp(pcm) == pytest.approx(123456.789012, abs=1e-6)


def test_a_frame_behind_its_prefix_is_the_request_of_the_contract():
    content = bytes(range(128)) * 5
    request = pb.StreamingConverseRequest.FromString(audio_prefix() + content)
    assert request.audio.content == content
    told = pb.StreamingConverseRequest.FromString(setup(Caller("HIGH", False, 7))).setup.config
    assert told.turn_policy.eagerness == pb.EAGERNESS_HIGH
    assert told.turn_policy.no_speculation
    assert told.sampling.max_output_tokens == 7


def test_plans_survive_their_file(tmp_path):
    plan = Plan("localhost:1", [Caller(), Caller("AUTO", False)])
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


def test_events_become_replies_on_the_clock_of_the_user():
    events = [
        [101.0, "decision", "SPECULATE"],
        [103.0, "decision", "COMMIT"],
        [103.0, "started", True],
        [103.1, "audio", 102.0],
        [103.4, "audio", 103.3],
        [104.0, "completed", 1],
        [110.0, "started", False],
        [111.0, "interruption", ""],
    ]
    found = conversation(User(np.zeros(0, np.int16), TURNS), 100.0, events)
    assert found.speculations == (1.0,)
    first, second = found.replies
    assert (first.committed, first.speculative, first.completed) == (3.0, True, 4.0)
    assert first.audio == (pytest.approx(3.1), pytest.approx(3.4))
    assert (second.committed, second.interrupted, second.audio) == (10.0, 11.0, ())
    # What was made before the reply was given waited on purpose.
    assert to_client(events) == [pytest.approx(0.1)]


def test_users_say_what_their_labels_tell():
    speech = np.full(48_000, 9000, np.int16)
    user = make_user(speech, 40, 3, answer_s=6)
    again = make_user(speech, 40, 3, answer_s=6)
    assert np.array_equal(user.pcm, again.pcm)
    assert user.turns == again.turns
    assert not np.array_equal(user.pcm, make_user(speech, 40, 4, answer_s=6).pcm)
    assert len(user.pcm) == 40 * 16_000
    for turn in user.turns:
        begins, ends = round(turn.begins * 16_000), round(turn.ends * 16_000)
        assert np.abs(user.pcm[begins - 800 : begins]).max() < 50
        assert np.abs(user.pcm[begins + 200 : begins + 1000]).max() > 5000
        assert np.abs(user.pcm[ends : ends + 5 * 16_000]).max() < 50
    other = make_interrupter(speech, 30, 1, listen_s=2.5, every_s=4)
    begins = round(other.turns[0].begins * 16_000)
    assert np.abs(other.pcm[begins - 2 * 16_000 : begins]).max() < 50 < other.pcm[begins]


def test_of_a_peer_reply_only_the_first_sound_counts():
    events = [[1.5, "audio", 1.0], [1.9, "audio", 1.001], [9.2, "audio", 9.0], [9.9, "lost", ""]]
    assert first_sounds(events) == [(1.5, 1.0), (9.2, 9.0)]
