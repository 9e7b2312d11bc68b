import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step1.logits import AllowedIds, AudioGrammar, RepetitionFilter, column_of, token_at

pytestmark = pytest.mark.unit


def test_nothing_is_banned_before_the_window_is_full_or_without_a_repeat():
    rule = RepetitionFilter()
    assert rule.banned([5] * 9) is None
    assert rule.banned([5] * 10) == 5
    assert rule.banned([9, *range(8), 9]) == 9
    assert rule.banned([9, *range(9), 9]) is None


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_the_grammar_allows_the_codebook_of_the_phase_only(generated, min_groups):
    rule = AudioGrammar(min_groups=min_groups)
    ids = {i for low, high in rule.allowed(generated) for i in (low, high - 1)}
    codes = {i - 65536 for i in ids if i != 3}
    assert codes == ({0, 1023} if generated % 5 < 2 else {1024, 5119})
    assert (3 in ids) == (generated % 5 == 0 and generated // 5 >= min_groups)


def test_the_grammar_follows_the_configured_ids():
    assert AudioGrammar(audio_offset=100, stop_id=7000).allowed(0) == ((100, 1124), (7000, 7001))


def test_allowed_ids_do_not_depend_on_the_step():
    rule = AllowedIds(((3, 9),))
    assert rule.allowed(0) == rule.allowed(77) == ((3, 9),)


def test_columns_and_ids_of_partial_logits_belong_together():
    ids = ((3, 4), (100, 103), (500, 501))
    order = [3, 100, 101, 102, 500]
    assert [token_at(column, ids) for column in range(5)] == order
    assert [column_of(token, ids) for token in order] == [0, 1, 2, 3, 4]
    assert column_of(4, ids) is None
    with pytest.raises(IndexError):
        token_at(5, ids)


def test_the_filter_finds_its_id_in_partial_logits():
    ids = ((3, 4), (100, 103))
    scores = torch.zeros(2, 4)
    RepetitionFilter().apply([[101] * 10, [7] * 10], scores, ids)
    assert scores.isinf().nonzero().tolist() == [[0, 2]]
