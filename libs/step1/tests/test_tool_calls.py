import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step1.tool_calls import TextDelta, ToolCall, ToolCallError, ToolCallParser, render_call

pytestmark = pytest.mark.unit


def parse(parts):
    parser = ToolCallParser()
    events = [event for part in parts for event in parser.feed(part)]
    events += parser.finish()
    merged = []
    for event in events:
        if merged and isinstance(event, TextDelta) and isinstance(merged[-1], TextDelta):
            merged[-1] = TextDelta(merged[-1].text + event.text)
        else:
            merged.append(event)
    return merged


REPLY = (
    "One moment. "
    + render_call("weather", {"city": "巴黎"})
    + render_call("clock", {})
    + " Done <tool"
)
EVENTS = [
    TextDelta("One moment. "),
    ToolCall("weather", {"city": "巴黎"}),
    ToolCall("clock", {}),
    TextDelta(" Done <tool"),
]


@given(st.lists(st.integers(0, len(REPLY))))
def test_any_cut_of_the_reply_gives_the_same_events(cuts):
    edges = [0, *sorted(cuts), len(REPLY)]
    assert parse([REPLY[a:b] for a, b in pairwise(edges)]) == EVENTS


@given(st.text(alphabet="<tol_ca>/x\n"))
def test_text_without_a_whole_tag_passes_unchanged(text):
    if "<tool_call>" in text:
        return
    assert parse(list(text)) == ([TextDelta(text)] if text else [])


def test_text_is_not_held_back_longer_than_a_tag_may_be_forming():
    parser = ToolCallParser()
    assert parser.feed("a <tool") == [TextDelta("a ")]
    assert parser.feed("box") == [TextDelta("<toolbox")]


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ("function\nweather\n{", "not JSON"),
        ("function\nweather\n[1]", "not an object"),
        ("function\n\n{}", "no name"),
        ("retrieval\nweather\n{}", "begins with 'retrieval'"),
        ('function\nweather\n{"a": ["\\ud800"]}', "half of a surrogate pair"),
        ('function\nweather\n{"\\udfff": 1}', "half of a surrogate pair"),
        ('function\nweather\n{"a": ' + "9" * 400 + "}", "too large"),
        ('function\nweather\n{"a": -1e999}', "too large"),
        ('function\nweather\n{"a": NaN}', "NaN is no JSON number"),
        ("function\nweather\n" + '{"a":' * 25 + "1" + "}" * 25, "more than 24 levels"),
        ("function\nweather\n" + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_block_that_is_no_call_is_refused(block, word):
    with pytest.raises(ToolCallError, match=word):
        ToolCallParser().feed(f"<tool_call>{block}</tool_call>")


def test_what_json_writes_in_halves_or_deep_but_not_too_deep_is_taken():
    arguments = '{"a":' * 23 + '["\\ud83d\\ude42", 1e308, null]' + "}" * 23
    [call] = ToolCallParser().feed(f"<tool_call>function\nweather\n{arguments}</tool_call>")
    assert call == ToolCall("weather", json.loads(arguments))


def test_a_reply_that_ends_inside_a_call_is_refused():
    parser = ToolCallParser()
    parser.feed("<tool_call>function\nweather\n")
    with pytest.raises(ToolCallError, match="ended inside"):
        parser.finish()
