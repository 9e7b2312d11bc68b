import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_core.errors import InvalidArgument
from parley_core.tokens import (
    CODEBOOK_SIZE,
    StreamingInterleaver,
    check_tokens,
    deinterleave,
    from_text,
    interleave,
    to_text,
    token_offset,
    tokens_duration,
)

pytestmark = pytest.mark.unit

GOLDEN = Path("/work/shared/golden/01_merge/cases.json")
LM_OFFSET = 65536

linguistic_codes = st.lists(st.integers(0, 1023), max_size=40)
semantic_codes = st.lists(st.integers(0, 4095), max_size=40)


def test_the_vector_of_the_spec():
    ids = interleave([1, 2, 3, 4], [10, 11, 12, 13, 14, 15])
    assert [LM_OFFSET + value for value in ids] == [
        65537, 65538, 66570, 66571, 66572, 65539, 65540, 66573, 66574, 66575,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("linguistic", "semantic", "groups"),
    [(0, 0, 0), (1, 3, 0), (2, 2, 0), (2, 3, 1), (3, 5, 1), (4, 5, 1), (5, 6, 2), (100, 6, 2)],
)
def test_only_whole_groups_come_out(linguistic, semantic, groups):
    assert len(interleave([0] * linguistic, [0] * semantic)) == 5 * groups


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden vectors are not on this machine")
def test_interleaving_is_the_references():
    cases = json.loads(GOLDEN.read_text())
    assert len(cases) > 100
    for case in cases:
        ids = interleave(case["vq02"], case["vq06"])
        assert [LM_OFFSET + value for value in ids] == case["wav2token_ids"]
        assert to_text(ids) == case["merge_token_str"]
        assert from_text(case["merge_token_str"]) == ids


@given(linguistic_codes, semantic_codes)
def test_deinterleave_undoes_interleave(linguistic, semantic):
    ids = interleave(linguistic, semantic)
    groups = len(ids) // 5
    assert deinterleave(ids) == (linguistic[: 2 * groups], semantic[: 3 * groups])
    assert from_text(to_text(ids)) == ids


@settings(max_examples=50)
@given(linguistic_codes, semantic_codes, st.data())
def test_any_packets_in_any_order_give_the_same_tokens(linguistic, semantic, data):
    interleaver = StreamingInterleaver()
    out = []
    left, right = list(linguistic), list(semantic)
    while left or right:
        take_left = data.draw(st.integers(0, len(left)))
        take_right = data.draw(st.integers(0 if take_left or not right else 1, len(right)))
        if not take_left and not take_right:
            take_left = 1
        assert interleaver.next_offset == token_offset(len(out))
        out += interleaver.feed(left[:take_left], right[:take_right])
        assert len(out) % 5 == 0
        left, right = left[take_left:], right[take_right:]
    assert out == interleave(linguistic, semantic)
    groups = len(out) // 5
    assert interleaver.finish() == (len(linguistic) - 2 * groups, len(semantic) - 3 * groups)
    assert interleaver.pending == (0, 0)
    assert interleaver.emitted == 0


@pytest.mark.parametrize(
    ("linguistic", "semantic"), [([1024], []), ([-1], []), ([], [4096]), ([], [-1])]
)
def test_a_code_outside_its_codebook_is_refused_and_nothing_is_taken(linguistic, semantic):
    interleaver = StreamingInterleaver()
    with pytest.raises(InvalidArgument) as caught:
        interleaver.feed([1, *linguistic], [1, *semantic])
    assert caught.value.reason == "CODE_OUT_OF_RANGE"
    assert interleaver.pending == (0, 0)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([0, 1, 1024, 1025, CODEBOOK_SIZE], "TOKEN_OUT_OF_RANGE"),
        ([-1, 1, 1024, 1025, 1026], "TOKEN_OUT_OF_RANGE"),
        ([0, 1024, 1024, 1025, 1026], "TOKEN_ORDER"),
        ([0, 1, 1023, 1025, 1026], "TOKEN_ORDER"),
        ([0, 1, 1024], "TOKEN_GROUP_INCOMPLETE"),
    ],
)
def test_wire_ids_are_checked(ids, reason):
    with pytest.raises(InvalidArgument) as caught:
        check_tokens(ids, field="tokens.ids")
    assert caught.value.reason == reason
    assert caught.value.field == "tokens.ids"


def test_the_grammar_goes_on_across_chunks():
    check_tokens([0, 1, 1024], whole=False)
    check_tokens([1024, 1024], start=3)
    with pytest.raises(InvalidArgument):
        check_tokens([0, 1], start=3, whole=False)


@pytest.mark.parametrize(
    "text", ["<audio_5120>", "<audio_01>", "<audio_1> ", "hello", "<audio_-1>"]
)
def test_text_that_is_not_tokens_is_refused(text):
    with pytest.raises(InvalidArgument):
        from_text(text)


def test_five_tokens_last_120_ms():
    assert tokens_duration(5) == timedelta(milliseconds=120)
    assert tokens_duration(250) == timedelta(seconds=6)
    assert token_offset(9) == timedelta(milliseconds=120)
