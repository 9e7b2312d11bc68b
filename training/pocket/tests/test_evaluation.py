import json
import re
from itertools import islice

import numpy as np
import pytest
from corpus import split_tag
from domain import Exchange
from evaluation.asking import Outcome
from evaluation.figures import Spelling, error_rate, mean, share, words
from evaluation.questions import Asked, BadList, held_out, read_list
from evaluation.sound import RATE, mean_pitch, spoken_seconds, timbre
from evaluation.sphinx import grammar
from exchanges import draw

pytestmark = pytest.mark.unit

SUM = Exchange("sum", "what is two plus two", "two plus two is four")
STYLED = Exchange("styled", "say hello happily", "(高兴1)hello")
CALL = Exchange(
    "tool_call", "what time is it in rome", "", function="get_time",
    arguments=(("city", "rome"),), tools=("get_time",),
)  # fmt: skip
RESULT = Exchange(
    "tool_result", "what time is it in rome", "it is two o clock in rome", function="get_time",
    arguments=(("city", "rome"),), tools=("get_time",), result="two o clock",
)  # fmt: skip
IN_ROME = (("get_time", {"city": "rome"}),)


def outcome(exchange, text="", calls=(), live=False, problem=""):
    asked = Asked(exchange, "slt", np.zeros(1, np.float32), np.zeros(1, np.float32))
    return Outcome(asked, live, text, calls=calls, problem=problem)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        (outcome(SUM, "two plus two is four"), True),
        (outcome(SUM, " Two plus two is four."), True),
        (outcome(SUM, "two plus two is five"), False),
        (outcome(SUM, ""), False),
        (outcome(SUM, "two plus two is four", IN_ROME), False),
        (outcome(SUM, "two plus two is four", problem="Unavailable"), False),
        (outcome(STYLED, "(高兴1)hello"), True),
        (outcome(STYLED, "(高兴1"), False),
        (outcome(STYLED, "hello"), False),
        (outcome(STYLED, "(悲伤1)hello"), False),
        (outcome(CALL, calls=IN_ROME), True),
        (outcome(CALL, calls=(("get_time", {"city": "oslo"}),)), False),
        (outcome(CALL, calls=IN_ROME * 2), False),
        (outcome(CALL, "it is two o clock in rome"), False),
        (outcome(RESULT, calls=IN_ROME), True),
        (outcome(RESULT, "it is two o clock in rome", IN_ROME, live=True), True),
        (outcome(RESULT, "it is two o clock in rome", live=True), False),
    ],
)
def test_an_answer_is_right_in_words_tag_and_calls_or_not_at_all(given, right):
    assert given.right is right


def test_evaluation_asks_no_combination_that_may_have_been_trained_with():
    for exchange in islice(held_out(5), 300):
        if exchange.kind in ("sum", "difference", "follow_up", "repeat", "count"):
            assert exchange.held_out


def test_the_grammar_knows_every_word_that_is_answered():
    known = set(re.findall(r"[a-z]+", grammar()))
    for exchange in islice(draw(3), 3000):
        if exchange.kind != "tool_call":
            assert set(split_tag(exchange.answer)[1].split()) <= known, exchange.answer


def test_words_of_our_recogniser_are_read_as_they_are_spelled():
    assert words("spell CAT") == ["spell", "c", "a", "t"]
    assert words("It's twenty-five, o clock.") == ["it's", "twenty", "five", "o", "clock"]
    assert Spelling.of("a b c", "a c") == Spelling(1, 3)


def test_figures_carry_their_interval_and_say_whether_a_target_is_met():
    row = share("x", 95, 100, 95)
    assert (row.figure, row.count, row.met) == ("95.0 % (88.8 to 97.8)", "100", True)
    assert share("x", 94, 100, 95).met is False
    assert share("x", 0, 0, 95).figure == "not measured"
    row = error_rate("x", [Spelling(0, 5)] * 9 + [Spelling(5, 5)], 5)
    assert row.figure.startswith("WER 10.00 %")
    assert row.met is False
    assert mean("x", [1.0, 2.0, 3.0], "x", least=2).met is True
    assert mean("x", [1.0, 1.0, 9.0], " s", most=1, percentile=50).met is True


def test_questions_of_ones_own_are_read_or_refused_by_line(tmp_path):
    path = tmp_path / "questions.jsonl"
    asked = {"question": "and plus two", "answer": "six plus two is eight"}
    called = {"question": "the time", "function": "get_time", "arguments": {"city": "rome"}}
    lines = [asked | {"history": ["three plus three"]}, called]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    follow_up, call = read_list(path)
    assert follow_up.history[0].user == "three plus three"
    assert (call.kind, call.arguments) == ("tool_call", (("city", "rome"),))
    for wrong in ('{"question": "x"}', "{", "[]", json.dumps(asked | {"tools": ["z"]})):
        path.write_text(wrong)
        with pytest.raises(BadList, match="line 1"):
            read_list(path)
    with pytest.raises(BadList, match="cannot be read"):
        read_list(tmp_path / "nothing")


def voice(pitch, seconds=1.0):
    t = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * pitch * n * t) / n for n in range(1, 8))
    return (0.2 * wave).astype(np.float32)


def test_sound_is_measured_by_its_length_pitch_and_timbre():
    low, high = voice(110), voice(180)
    assert spoken_seconds(np.pad(low, (4000, 9000))) == pytest.approx(1.0, abs=0.01)
    assert spoken_seconds(np.zeros(100, np.float32)) == 0
    assert mean_pitch(low) == pytest.approx(110, rel=0.02)
    assert mean_pitch(high) == pytest.approx(180, rel=0.02)
    assert mean_pitch(np.zeros(8000, np.float32)) == 0
    apart = np.abs(timbre(low) - timbre(high))
    same = np.abs(timbre(low) - timbre(0.5 * low))
    assert apart[0] == pytest.approx(np.log(180 / 110), rel=0.05)
    assert same[0] == pytest.approx(0, abs=0.01)
