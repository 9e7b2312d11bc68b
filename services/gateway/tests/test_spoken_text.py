"""Text against the time of its audio."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_gateway.spoken_text import SECONDS_PER_TOKEN, SpokenText

pytestmark = pytest.mark.unit


def spoken(*segments):
    """Segments of (tokens, text)."""
    text, position = SpokenText(), 0
    for number, (tokens, words) in enumerate(segments):
        text.add(tokens, number, position, position + len(words))
        position += len(words)
    return text


def test_audio_spans_the_segments_that_it_touches():
    text = spoken((50, "One two."), (50, " Three."))
    assert text.span(0.0, 0.5) == (0, 8)
    assert text.span(1.1, 1.3) == (0, 15)
    assert text.span(1.2, 2.4) == (8, 15)
    assert text.span(9.0, 9.1) == (8, 15)
    assert SpokenText().span(0, 1) == (0, 0)


def test_what_was_heard_ends_with_a_whole_word():
    words = "one two three four"
    text = spoken((100, words))
    assert text.heard(words, 0.0) == ""
    assert text.heard(words, 1.2) == "one two"
    assert text.heard(words, 2.4) == words
    assert text.heard(words, 99.0) == words


def test_writing_without_spaces_is_cut_at_a_character():
    words = "今天天气很好。"
    assert spoken((70, words)).heard(words, 70 * SECONDS_PER_TOKEN / 2) == "今天天"


@given(
    st.lists(st.tuples(st.integers(1, 200), st.text("ab c.今天", min_size=1)), max_size=6),
    st.lists(st.floats(0, 30), min_size=2),
)
def test_heard_is_a_prefix_that_grows_with_time(segments, times):
    text = spoken(*segments)
    words = "".join(each for _, each in segments)
    heard = [text.heard(words, each) for each in sorted(times)]
    assert all(words.startswith(each) for each in heard)
    assert [len(each) for each in heard] == sorted(len(each) for each in heard)
