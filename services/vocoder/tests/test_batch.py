import pytest
from parley_vocoder.engine.batch import by_length, choose

pytestmark = pytest.mark.unit


def pick(
    deadlines: dict[str, float],
    most: int = 1000,
    frames: int = 100,
    last_sound: dict[str, float] | None = None,
) -> list[str]:
    """At 100 s; who is not new was given sound a second ago unless `last_sound` says when."""
    return choose(
        list(deadlines),
        lambda name: None if name.startswith("new") else (last_sound or {}).get(name, 99.0),
        deadlines.__getitem__,
        lambda _: frames,
        now=100.0,
        reserve=0.3,
        most=most,
    )


def test_streams_without_sound_move_before_those_that_have_some_left() -> None:
    assert pick({"far ahead": 120.0, "dry soon": 100.2, "dry": 99.9, "drier": 99.0}) == [
        "drier",
        "dry",
    ]


def test_newcomers_move_before_streams_that_ran_dry() -> None:
    assert pick({"dry": 96.0, "newer": 99.8, "new": 99.5, "far ahead": 120.0}) == ["new", "newer"]


def test_who_was_given_no_sound_for_long_is_not_passed_over_however_many_come() -> None:
    newcomers = {f"new {n}": 99.0 + n / 10 for n in range(9)}
    picked = pick(
        {"starved": 93.0, "dry": 95.0, **newcomers}, most=200, last_sound={"starved": 89.9}
    )
    assert picked == ["starved", "new 0"]


def test_newcomers_move_before_streams_that_move_but_have_been_behind_for_long() -> None:
    behind = {f"behind {n}": 60.0 + n for n in range(7)}
    assert pick({**behind, "new": 99.9}) == ["new"]


def test_streams_that_run_dry_soon_move_before_those_far_ahead() -> None:
    assert pick({"far ahead": 120.0, "dry soon": 100.2, "sooner": 100.1}) == ["sooner", "dry soon"]


def test_all_move_when_nothing_is_urgent() -> None:
    assert pick({"b": 120.0, "a": 110.0}) == ["a", "b"]


def test_a_step_holds_the_most_urgent_up_to_its_frames() -> None:
    assert pick({"c": 93.0, "a": 91.0, "b": 92.0}, most=200) == ["a", "b"]


def test_a_window_larger_than_a_step_still_moves() -> None:
    assert pick({"b": 120.0, "a": 110.0}, most=50) == ["a"]
    assert pick({}) == []


def test_rows_of_a_batch_are_of_similar_length() -> None:
    groups = by_length([100, 40, 99, 76, 74, 39, 1], int)
    assert groups == [[100, 99, 76], [74], [40, 39], [1]]
    assert by_length([], int) == []
