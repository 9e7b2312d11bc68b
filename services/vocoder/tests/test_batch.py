import pytest
from parley_vocoder.engine.batch import by_length, choose

pytestmark = pytest.mark.unit


def pick(deadlines: dict[str, float], most: int = 1000, frames: int = 100) -> list[str]:
    return choose(
        list(deadlines),
        lambda name: not name.startswith("new"),
        deadlines.__getitem__,
        lambda _: frames,
        now=10.0,
        reserve=0.3,
        most=most,
    )


def test_streams_without_sound_move_before_those_that_have_some_left() -> None:
    assert pick({"far ahead": 30.0, "dry soon": 10.2, "dry": 9.9, "drier": 9.0}) == ["drier", "dry"]


def test_newcomers_move_before_streams_that_ran_dry() -> None:
    assert pick({"dry": 6.0, "newer": 9.8, "new": 9.5, "far ahead": 30.0}) == ["new", "newer"]


def test_who_has_been_dry_for_long_is_not_passed_over_however_many_come() -> None:
    newcomers = {f"new {n}": 9.0 + n / 10 for n in range(9)}
    assert pick({"long dry": 4.9, "dry": 8.0, **newcomers}, most=200) == ["long dry", "new 0"]


def test_streams_that_run_dry_soon_move_before_those_far_ahead() -> None:
    assert pick({"far ahead": 30.0, "dry soon": 10.2, "sooner": 10.1}) == ["sooner", "dry soon"]


def test_all_move_when_nothing_is_urgent() -> None:
    assert pick({"b": 30.0, "a": 20.0}) == ["a", "b"]


def test_a_step_holds_the_most_urgent_up_to_its_frames() -> None:
    assert pick({"c": 3.0, "a": 1.0, "b": 2.0}, most=200) == ["a", "b"]


def test_a_window_larger_than_a_step_still_moves() -> None:
    assert pick({"b": 30.0, "a": 20.0}, most=50) == ["a"]
    assert pick({}) == []


def test_rows_of_a_batch_are_of_similar_length() -> None:
    groups = by_length([100, 40, 99, 76, 74, 39, 1], int)
    assert groups == [[100, 99, 76], [74], [40, 39], [1]]
    assert by_length([], int) == []
