import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step1.detokenizer import Detokenizer
from step1.text_tokenizer import TextTokenizer, TokenizerError

pytestmark = pytest.mark.unit

MARKERS = ["<s>", "</s>", "<unk>", "<|EOT|>", "<|BOT|>", "<audio_0>", "<audio_5119>", "<audio_9>"]


def test_published_special_ids(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eot_id, tokenizer.bot_id) == (1, 3, 4)
    assert tokenizer.audio_id(0) == 65536
    assert tokenizer.audio_id(5119) == 70655


def test_the_published_vector_of_markers_and_audio(tokenizer):
    ids = tokenizer.encode_template("<s><|BOT|> assistant\n<audio_1><|EOT|>")
    assert ids[:2] == [1, 4]
    assert ids[-2:] == [65537, 3]
    assert tokenizer.decode(ids[2:-2]) == " assistant\n"


def test_only_text_at_the_very_start_gets_the_dummy_prefix(tokenizer):
    assert tokenizer.decode(tokenizer.encode("human\n")) == " human\n"
    after_marker = tokenizer.encode_template("<|BOT|>human\n")
    assert tokenizer.decode(after_marker) == "human\n"
    assert tokenizer.decode(tokenizer.encode("\nhuman")) == "\nhuman"
    assert tokenizer.decode(tokenizer.encode(" human")) == " human"
    assert tokenizer.encode("") == [1]


def test_the_references_newline_trick_equals_text_in_the_middle(tokenizer):
    for text in ("Hello, how are you?", "（高兴1）你好", " leading", "(RAP)yo"):
        newline = tokenizer.encode("\n")
        assert tokenizer.encode("\n" + text)[len(newline) :] == tokenizer.encode_text(text)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode_text(text)) == text.replace("▁", " ")


@given(st.lists(st.one_of(st.sampled_from([*MARKERS, "<", "|EOT|>", "<audio_"]), st.text())))
@settings(max_examples=200, deadline=None)
def test_peoples_text_never_yields_an_added_token(tokenizer, parts):
    text = "".join(parts)
    for at_start in (False, True):
        ids = tokenizer.encode_text(text, at_start=at_start)
        assert all(tokenizer.token_bytes(token) for token in ids)
        assert all(4 < token < tokenizer.size for token in ids)


def test_a_typed_marker_is_its_characters(tokenizer):
    for marker in MARKERS:
        assert tokenizer.decode(tokenizer.encode_text(f"a{marker}b")) == f"a{marker}b"
        assert len(tokenizer.encode_template(marker)) == 1


def test_an_audio_id_out_of_range_is_refused(tokenizer):
    for code in (-1, 5120):
        with pytest.raises(ValueError, match=r"outside 0\.\.5119"):
            tokenizer.audio_id(code)
    with pytest.raises(ValueError, match=r"outside 0\.\.5119"):
        tokenizer.encode_template("<audio_5120>")


def test_specials_and_audio_are_left_out_of_text_unless_asked_for(tokenizer):
    ids = tokenizer.encode_template("<s><|BOT|>human\nhi<audio_7><|EOT|>")
    assert tokenizer.decode(ids) == "human\nhi"
    assert tokenizer.decode(ids, skip_special=False) == "<s><|BOT|>human\nhi<audio_7><|EOT|>"
    assert tokenizer.decode([70656, 74751]) == ""


def test_text_ranges_hold_text_and_nothing_else(tokenizer):
    allowed = {i for low, high in tokenizer.text_ranges(3) for i in range(low, high)}
    assert 3 in allowed
    assert allowed.isdisjoint({0, 1, 2, 4})
    assert max(allowed) == tokenizer.size - 1
    assert set(tokenizer.encode_text("Hello 你好 🙂\n")) <= allowed


@given(st.text(), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_streamed_text_equals_whole_text_and_never_splits_a_character(tokenizer, text, size):
    ids = tokenizer.encode_text(text)
    detokenizer = Detokenizer(tokenizer)
    parts = [detokenizer.feed(ids[i : i + size]) for i in range(0, len(ids), size)]
    assert "�" not in "".join(parts).replace("�" if "�" in text else "\0", "")
    assert "".join(parts) + detokenizer.flush() == tokenizer.decode(ids)


def test_a_character_waits_until_its_last_byte(tokenizer):
    ids = tokenizer.encode_text("🙂")
    assert len(ids) == 4
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.feed([token]) for token in ids] == ["", "", "", "🙂"]
    unfinished = Detokenizer(tokenizer)
    assert unfinished.feed(ids[:2]) == ""
    assert unfinished.feed([tokenizer.eot_id]) == ""
    assert unfinished.flush() == "�"


def test_an_unusable_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(TokenizerError, match="cannot be read"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(TokenizerError, match=r"tokenizer\.model") as caught:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
