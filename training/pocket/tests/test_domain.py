"""The data engine: answers are right, draws repeat, evaluation never meets training."""

import itertools
import random

import pytest
from corpus import plan, split_tag
from domain import CAPITALS, COMBINATIONS, TOOLS, number
from exchanges import KINDS, answer_words, draw
from speech import STYLES
from writing import with_capitals, written_form

pytestmark = pytest.mark.unit

NUMBERS = {number(value): value for value in range(200)}


def _drawn(count: int, seed: int = 5) -> list:
    return list(itertools.islice(draw(seed), count))


def test_the_same_seed_draws_the_same_exchanges() -> None:
    assert _drawn(300) == _drawn(300)
    assert _drawn(300) != _drawn(300, seed=6)


def test_every_kind_of_question_is_drawn() -> None:
    assert len({exchange.kind for exchange in _drawn(3000)}) >= len(KINDS) - 1


def test_sums_and_differences_are_right_and_restate_the_question() -> None:
    checked = 0
    for exchange in _drawn(3000):
        if exchange.kind not in {"sum", "difference", "follow_up"}:
            continue
        left, result = exchange.answer.rsplit(" is ", 1)
        word = "plus" if " plus " in left else "minus"
        a, b = (NUMBERS[part] for part in left.split(f" {word} "))
        assert NUMBERS[result] == (a + b if word == "plus" else a - b), exchange
        assert exchange.question.endswith(f"{word} {number(b)}")
        checked += 1
    assert checked > 500


def test_a_follow_up_goes_on_from_the_answer_before() -> None:
    for exchange in _drawn(1500):
        if exchange.kind == "follow_up":
            before = exchange.history[-1].assistant.rsplit(" is ", 1)[1]
            assert exchange.answer.startswith(f"{before} ")


def test_capitals_are_those_of_their_country() -> None:
    for exchange in _drawn(1500):
        if exchange.kind == "capital":
            country = exchange.question.rsplit(" of ", 1)[1]
            assert exchange.answer == f"the capital of {country} is {CAPITALS[country]}"


def test_a_call_names_a_declared_function_and_the_city_of_the_question() -> None:
    for exchange in _drawn(1500):
        if exchange.function:
            assert exchange.function in exchange.tools
            assert set(exchange.tools) <= set(TOOLS)
            assert exchange.question.endswith(dict(exchange.arguments)["city"])


def test_about_a_tenth_of_the_combinations_is_held_out_and_no_fact_is() -> None:
    exchanges = _drawn(6000)
    combined = [exchange for exchange in exchanges if exchange.kind in COMBINATIONS]
    share = sum(exchange.held_out for exchange in combined) / len(combined)
    assert 0.07 < share < 0.14
    assert not any(exchange.held_out for exchange in exchanges if exchange.kind not in COMBINATIONS)


def test_a_plan_repeats_and_grows_without_changing_what_was_planned() -> None:
    assert plan(400, seed=1)[:150] == plan(150, seed=1)


def test_a_plan_of_some_kinds_holds_these_alone_and_a_name_of_none_is_refused() -> None:
    planned = plan(200, 4, 0.0, only=("calendar", "weather"))
    kinds = {each.exchange.kind for each in planned}
    assert kinds == {"calendar", "tool_call", "tool_result"}
    with pytest.raises(ValueError, match="wether"):
        plan(1, 4, only=("wether",))


def test_a_plan_about_some_words_asks_of_these_alone_and_an_unknown_one_is_refused() -> None:
    planned = plan(200, 4, 0.0, only=("weather", "opposite"), mentioning=("london", "loud"))
    assert {"london", "loud"} == {each.text.split()[-1] for each in planned}
    with pytest.raises(ValueError, match="lundon"):
        plan(1, 4, mentioning=("lundon",))


def test_every_tag_of_an_answer_has_a_rendering_and_is_not_spoken() -> None:
    tags = set()
    for exchange in _drawn(3000):
        tag, text = split_tag(exchange.answer)
        assert tag in STYLES
        assert "(" not in text
        tags.add(tag)
    assert tags == set(STYLES)


def test_a_salad_is_of_the_words_of_answers_in_any_order_and_style() -> None:
    salads = plan(400, 3, 1.0, salads=True)
    assert {each.role for each in salads} == {"answer"}
    assert {word for each in salads for word in each.text.split()} == set(answer_words())
    assert {each.tag for each in salads} == {*STYLES}
    pairs = {pair for each in salads for pair in itertools.pairwise(each.text.split())}
    assert len(pairs) > 1000
    assert 10 < sum(each.exchange.held_out for each in salads) < 80


def test_names_get_their_capitals_and_other_words_none() -> None:
    assert with_capitals("the capital of france is paris") == "the capital of France is Paris"
    assert with_capitals("does friday come after june") == "does Friday come after June"
    assert with_capitals("parisian fridays are romantic") == "parisian fridays are romantic"


def test_a_quarter_of_written_questions_have_names_with_capitals() -> None:
    rng = random.Random(1)
    written = [written_form("what is the capital of france", rng, "?") for _ in range(400)]
    assert 0.15 < sum("France" in each for each in written) / 400 < 0.35
    assert all(each[0] == "W" for each in written if "France" in each)
