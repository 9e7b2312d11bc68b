"""What counts as held in a load test; nothing here is timed."""

import dataclasses

import numpy as np
import pytest
from parley_evals import load_test
from parley_evals.bench_turns.figures import Conversation, Reply
from parley_evals.bench_turns.runs import Held
from parley_evals.bench_turns.speech import SpokenTurn

pytestmark = pytest.mark.unit

TURNS = (SpokenTurn(1.0, 3.0), SpokenTurn(9.0, 10.0))
ON_TIME = (
    Reply(3.5, audio=(3.6, 3.7, 3.75), offsets=(0.0, 0.12, 0.24)),
    Reply(10.5, audio=(10.6, 10.8), offsets=(0.0, 0.12)),
)


def row(*conversations, lost=(), notices=()):
    sent = np.zeros((len(conversations), 1, 2))
    return load_test.Row.of(Held(conversations, [0.001], 0.1, lost, notices, sent, []))


def test_a_row_is_held_when_every_turn_was_answered_in_time():
    found = row(Conversation(TURNS, ON_TIME))
    assert (found.turns, found.answered, found.replies, found.dry) == (2, 2, 2, 0)
    assert (found.gap_p50, found.gap_p95) == pytest.approx((0.6, 0.6))
    assert found.held
    assert len(found.cells()) == len(load_test.Row.HEAD)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(
            row(Conversation(TURNS, ON_TIME), lost=("UNAVAILABLE",)), id="a conversation broke off"
        ),
        pytest.param(row(Conversation(TURNS, ON_TIME), notices=("X",)), id="a problem was told"),
        pytest.param(row(Conversation(TURNS, ON_TIME[:1])), id="a turn without an answer"),
        pytest.param(row(Conversation((), ())), id="nobody said anything"),
        pytest.param(
            row(Conversation(TURNS, (ON_TIME[0], Reply(11.2, audio=(11.3,), offsets=(0.0,))))),
            id="an answer that came late",
        ),
        pytest.param(
            row(
                Conversation(
                    TURNS, (ON_TIME[0], dataclasses.replace(ON_TIME[1], audio=(10.6, 10.9)))
                )
            ),
            id="a reply that ran dry",
        ),
    ],
)
def test_a_row_is_not_held_with(found):
    assert not found.held


def test_a_reply_runs_dry_by_what_its_sound_is_late_and_an_interrupted_one_does_not_count():
    late = Reply(3.5, audio=(3.6, 4.0, 4.05), offsets=(0.0, 0.12, 0.24))
    assert late.dry == pytest.approx(0.28)
    assert Reply(3.5).dry == 0
    cut = dataclasses.replace(late, interrupted=4.1)
    assert row(Conversation(TURNS, (cut, ON_TIME[1]))).dry == 0


@pytest.mark.parametrize("count", ["0", "201", "many"])
def test_numbers_of_conversations_that_cannot_be_are_refused(count, capsys):
    with pytest.raises(SystemExit):
        load_test.main(["localhost:1", "--conversations", count])
    assert count in capsys.readouterr().err


def test_without_a_gateway_one_line_says_so(capsys):
    with pytest.raises(SystemExit) as ended:
        load_test.main(["127.0.0.1:1", "--conversations", "1"])
    assert ended.value.code == 1
    told = capsys.readouterr().err.strip()
    assert "127.0.0.1:1" in told
    assert "\n" not in told


def test_what_broke_off_is_counted_by_its_reason():
    found = row(Conversation(TURNS, ON_TIME), lost=("UNAVAILABLE", "ABORTED", "UNAVAILABLE"))
    assert "2 UNAVAILABLE, 1 ABORTED" in found.cells()
