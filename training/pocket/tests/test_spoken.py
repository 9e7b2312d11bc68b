"""Which spoken questions the chat model learns from, of several corpora."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chat import HEARD_AGAIN, Spoken
from corpus import plan
from tokenise import Tokens

pytestmark = pytest.mark.unit


def _corpus(size: int, seed: int, answers: float) -> tuple[Any, Tokens]:
    planned = plan(size, seed, answers)
    corpus = SimpleNamespace(
        utterances=[SimpleNamespace(role=each.role) for each in planned],
        exchanges=lambda: [each.exchange for each in planned],
    )
    # What stands for the sound of an utterance tells which it is.
    ids = [np.full(1 + i % 7, 1000 * seed + i, np.int16) for i in range(size)]
    return corpus, Tokens(ids, ids, ids)


@pytest.fixture
def corpora() -> list[tuple[Any, Tokens]]:
    return [_corpus(150, 3, 1 / 3), _corpus(200, 4, 0.0)]


def test_every_question_of_every_corpus_stands_beside_its_own_sound(
    corpora: list[tuple[Any, Tokens]],
) -> None:
    spoken = Spoken(corpora, rows=None)  # type: ignore[arg-type]
    for i in {*spoken.train, *spoken.new_phrases, *spoken.new_renderings}:
        seed, place = divmod(int(spoken.tokens.clean[i][0]), 1000)
        corpus = corpora[seed - 3][0]
        assert corpus.utterances[place].role == "question"
        assert corpus.exchanges()[place] == spoken.exchanges[i]


def test_what_is_kept_for_evaluation_is_never_trained_on_and_nothing_else_is_left_out(
    corpora: list[tuple[Any, Tokens]],
) -> None:
    spoken = Spoken(corpora, rows=None)  # type: ignore[arg-type]
    kept = {*spoken.new_phrases, *spoken.new_renderings}
    assert kept
    assert not kept & {*spoken.train}
    assert not any(spoken.exchanges[i].held_out for i in spoken.train)
    questions = sum(each.role == "question" for corpus, _ in corpora for each in corpus.utterances)
    assert len(kept) + len({*spoken.train}) == questions


def test_a_kind_is_drawn_once_more_for_each_time_that_it_is_named(
    corpora: list[tuple[Any, Tokens]],
) -> None:
    spoken = Spoken(corpora, rows=None)  # type: ignore[arg-type]
    for i, times in Counter(spoken.train).items():
        assert times == 1 + HEARD_AGAIN.count(spoken.exchanges[i].kind)
