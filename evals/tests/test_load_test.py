"""What counts as held in a load test; nothing here is timed."""

import asyncio
import dataclasses
import time
import wave

import numpy as np
import pytest
from parley_evals import load_test
from parley_evals.bench_turns import load
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


def test_where_nothing_was_answered_there_is_no_gap():
    assert row(Conversation(TURNS, ())).cells()[2:5] == ("0", "none", "none")


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


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "1000", "long"])
def test_lengths_that_cannot_be_are_refused(seconds, capsys):
    with pytest.raises(SystemExit):
        load_test.main(["127.0.0.1:1", "--seconds", seconds])
    assert seconds in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"no sound"])
def test_a_recording_that_cannot_be_read_is_named(tmp_path, capsys, content):
    path = tmp_path / "voice.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        load_test.main(["127.0.0.1:1", "--recording", str(path)])
    assert ended.value.code == 2
    assert "voice.wav" in capsys.readouterr().err


def test_a_silent_recording_is_no_voice(tmp_path, capsys):
    path = tmp_path / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(32_000))
    with pytest.raises(SystemExit):
        load_test.main(["127.0.0.1:1", "--recording", str(path)])
    assert "is silent" in capsys.readouterr().err


async def test_a_gateway_that_takes_no_frames_is_given_up(monkeypatch):
    class Hanging:
        """A call whose other side reads nothing and says nothing."""

        async def write(self, request):
            await asyncio.Event().wait()

        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.Event().wait()

        def cancel(self):
            self.cancelled = True

    monkeypatch.setattr(load, "_HUNG_S", 0.0)
    call, events = Hanging(), []
    pcm, sent = np.zeros(320, np.int16), np.full((1, 2), np.nan)
    await load._converse(call, load.Caller(), pcm, time.monotonic(), sent, events)
    assert [event[1:] for event in events] == [["lost", "hung"]]
    assert call.cancelled
