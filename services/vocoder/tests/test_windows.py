import itertools
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_vocoder.windows import FrameClock, Window, WindowPlan, WindowSettings

pytestmark = pytest.mark.unit

CLOCK = FrameClock(41.667, 22050, 256)

settings = st.builds(
    WindowSettings,
    ramp=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    left_context=st.integers(0, 9),
    look_ahead=st.integers(1, 4),
)


def plan_all(settings: WindowSettings, arrivals: list[int]) -> list[Window]:
    plan, windows, available = WindowPlan(settings, CLOCK), [], 0
    for arrival in arrivals:
        available += arrival
        while (window := plan.next(available, ended=False)) is not None:
            windows.append(window)
    while (window := plan.next(available, ended=True)) is not None:
        windows.append(window)
    return windows


@given(settings, st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(any))
def test_chunks_tile_the_utterance_to_its_exact_length(
    settings: WindowSettings, arrivals: list[int]
) -> None:
    windows = plan_all(settings, arrivals)
    assert windows[0].emit_from == 0
    for before, after in pairwise(windows):
        assert before.emit_to == after.emit_from
    assert windows[-1].emit_to == CLOCK.frames(sum(arrivals))
    assert [window.final for window in windows] == [False] * (len(windows) - 1) + [True]


@given(settings, st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(any))
def test_windows_do_not_depend_on_when_tokens_arrive(
    settings: WindowSettings, arrivals: list[int]
) -> None:
    assert plan_all(settings, arrivals) == plan_all(settings, [sum(arrivals)])


@given(settings, st.integers(1, 2000))
def test_every_frame_of_a_window_lies_among_its_tokens(
    settings: WindowSettings, tokens: int
) -> None:
    for window in plan_all(settings, [tokens]):
        assert 0 <= window.tokens_from < window.tokens_to <= tokens
        assert window.frames_from <= window.emit_from <= window.emit_to <= window.frames_to
        assert window.frames_from >= CLOCK.frames(window.tokens_from)
        assert window.frames_to <= CLOCK.frames(window.tokens_to)


def test_the_first_chunk_is_small_and_later_windows_are_all_alike() -> None:
    settings = WindowSettings(ramp=(1, 2, 4), left_context=3, look_ahead=1)
    windows = plan_all(settings, [1000])
    groups = [(window.emit_to - window.emit_from) / CLOCK.frames(50) * 10 for window in windows]
    assert [round(size) for size in groups[:4]] == [1, 2, 4, 4]
    assert len({window.frames_to - window.emit_from for window in windows[2:-1]}) == 1
    assert len({window.emit_from - window.frames_from for window in windows[2:]}) == 1


def test_a_listener_never_runs_dry_when_tokens_come_1_6_times_as_fast_as_they_sound() -> None:
    settings = WindowSettings()
    first, *later = list(itertools.accumulate(settings.ramp + settings.ramp[-1:] * 5))
    begun = (first + settings.look_ahead) / 1.6
    for heard, end in pairwise([first, *later]):
        assert (end + settings.look_ahead) / 1.6 <= begun + heard


def test_nothing_is_decoded_before_its_look_ahead_arrived() -> None:
    plan = WindowPlan(WindowSettings(ramp=(2,), look_ahead=2), CLOCK)
    assert plan.next(19, ended=False) is None
    assert plan.next(20, ended=False) is not None


def test_no_tokens_make_no_window() -> None:
    assert WindowPlan(WindowSettings(), CLOCK).next(0, ended=True) is None


@pytest.mark.parametrize("wrong", [{"ramp": ()}, {"ramp": (0,)}, {"look_ahead": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WindowSettings(**wrong)  # type: ignore[arg-type]
