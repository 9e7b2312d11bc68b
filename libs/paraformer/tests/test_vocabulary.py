import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paraformer.checkpoint import CheckpointError
from paraformer.vocabulary import Vocabulary, join_tokens, spaced, stable_words

pytestmark = pytest.mark.unit

TOKENS = ["你", "好", "3", "hel@@", "lo", "wor@@", "ld", "a", "b", "c", "the", "it's", "@@"]


@pytest.mark.parametrize(
    ("tokens", "text", "stable"),
    [
        ("你 好", "你好", "你好"),
        ("hel@@ lo wor@@ ld", "hello world", "hello world"),
        ("hel@@ lo wor@@", "hello wor", "hello"),
        ("你 hel@@ lo 好 the", "你hello好the", "你hello好the"),
        ("a", "a", ""),
        ("a b", "AB", ""),
        ("a b c the", "ABC the", "ABC the"),
        ("the a 你", "the a你", "the a你"),
        ("a hel@@", "a hel", ""),
        ("3 你 b 3", "3你b3", "3你b3"),
        ("it's the", "it's the", "it's the"),
        ("", "", ""),
    ],
)
def test_tokens_join_into_text(tokens, text, stable):
    words = join_tokens(tokens.split())
    assert spaced(words) == text
    assert spaced(stable_words(words)) == stable


@given(st.lists(st.sampled_from(TOKENS), max_size=12))
def test_stable_text_is_a_beginning_of_all_that_follows(tokens):
    texts = [join_tokens(tokens[:count]) for count in range(len(tokens) + 1)]
    for earlier, later in itertools.pairwise(texts):
        assert spaced(later).startswith(spaced(stable_words(earlier)))
        assert spaced(earlier).startswith(spaced(stable_words(earlier)))


@given(st.lists(st.sampled_from(TOKENS[:-1]), max_size=12))
def test_each_token_belongs_to_one_word(tokens):
    words = join_tokens(tokens)
    assert [i for word in words for i in range(word.first, word.last + 1)] == list(
        range(len(tokens))
    )


def test_token_lists_are_read_as_json_and_as_lines(tmp_path):
    (tmp_path / "t.json").write_text('["<blank>", "<s>", "</s>", "你", "<unk>"]', "utf-8")
    (tmp_path / "t.txt").write_text("<blank>\n<s>\n</s>\n你\n<unk>\n", "utf-8")
    found = Vocabulary.load(tmp_path / "t.json")
    assert found == Vocabulary.load(tmp_path / "t.txt")
    assert [found.is_special(i) for i in range(5)] == [True, True, True, False, True]


@pytest.mark.parametrize("text", ["{}", "[1, 2, 3, 4]", '["a"]', "[", "\xff"])
def test_a_broken_token_list_is_named(tmp_path, text):
    path = tmp_path / "tokens.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"tokens\.json"):
        Vocabulary.load(path)
