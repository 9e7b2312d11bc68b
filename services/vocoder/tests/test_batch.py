import pytest
from parley_vocoder.engine.batch import by_length, choose

pytestmark = pytest.mark.unit


def test_urgent_windows_move_alone() -> None:
    deadlines = {"new": 0.0, "dry soon": 10.2, "far ahead": 30.0}
    chosen = choose(list(deadlines), deadlines.__getitem__, now=10.0, reserve=0.3, most=8)
    assert chosen == ["new", "dry soon"]


def test_all_move_when_nothing_is_urgent() -> None:
    deadlines = {"b": 30.0, "a": 20.0}
    assert choose(list(deadlines), deadlines.__getitem__, 10.0, 0.3, 8) == ["a", "b"]


def test_the_most_urgent_go_first_when_not_all_fit() -> None:
    assert choose([3.0, 1.0, 2.0], float, now=5.0, reserve=0.0, most=2) == [1.0, 2.0]


def test_rows_of_a_batch_are_of_similar_length() -> None:
    groups = by_length([100, 40, 99, 76, 74, 39, 1], int)
    assert groups == [[100, 99, 76], [74], [40, 39], [1]]
    assert by_length([], int) == []
