"""Where in a text a voice is: from phones of words to pieces of the vocabulary."""

from itertools import groupby
from pathlib import Path

import following
import numpy as np
import pytest
from corpus import Spoken
from following import Follower
from speech import Rendering, Utterance
from step1.text_tokenizer import TextTokenizer

pytestmark = pytest.mark.unit

VOCABULARY = (
    Path(__file__).parents[3] / "weights/pocket/Step-Audio-TTS-3B/tokenizer.model"
).read_bytes()
ALONE = {"the": "dh ax", "old": "ow l d", "house": "hh aw s", "is": "ih z", "budapest": "b uw d"}


@pytest.fixture(autouse=True)
def _phones(monkeypatch: pytest.MonkeyPatch) -> None:
    def render(word: str, _: Rendering) -> Utterance:
        phones = ["pau", *ALONE[word].split(), "pau"]
        return Utterance(np.zeros(0, np.float32), tuple((name, 0.0) for name in phones))

    monkeypatch.setattr(following, "render", render)


def _said(text: str, phones: str) -> Spoken:
    """Each phone takes 0.24 s: two groups of tokens."""
    timed = tuple((name, 0.24 * (n + 1)) for n, name in enumerate(phones.split()))
    return Spoken(text, "awb", "answer", "", False, Rendering("awb"), 0, 0, timed)


def _followed(spoken: Spoken, written: str, tag: str, tokens: int) -> list[tuple[str, int]] | None:
    encoder = TextTokenizer(VOCABULARY, audio_offset=1280)
    pieces = encoder.encode_text(f"\n{tag}{written}")[len(encoder.encode_text("\n")) :]
    spans = Follower(VOCABULARY).spans(spoken, written, pieces, tokens)
    if spans is None:
        return None
    words = [encoder.decode(pieces[begin:end]).strip() for begin, end in spans]
    return [(word, len(list(same))) for word, same in groupby(words)]


@pytest.mark.parametrize("tag", ["", "(慢速2)", "(RAP)"])
def test_each_token_is_of_the_word_that_is_spoken_then(tag: str) -> None:
    spoken = _said("the old house", "pau dh ax ow l d hh aw s pau")
    followed = _followed(spoken, "The old house.", tag, 100)
    assert followed == [("The", 30), ("old", 30), ("house.", 30), ("", 10)]


def test_phones_that_differ_from_those_of_words_alone_stay_with_their_word() -> None:
    # "the" before a vowel, a house without its h, and one phone too many in "is".
    spoken = _said("the old house is budapest", "dh iy ow l d aw s ih z ah b uw d")
    followed = _followed(spoken, "the old house is budapest", "", 130)
    assert followed is not None
    assert dict(followed)["the"] == 20
    assert dict(followed)["old"] == 30
    assert dict(followed)["house"] == 20
    assert [word for word, _ in followed] == ["the", "old", "house", "is", "budapest"]


def test_digits_are_not_followed() -> None:
    assert _followed(_said("budapest is", "b uw d ih z"), "Budapest 7", "", 50) is None
