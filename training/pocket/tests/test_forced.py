"""What a TTS model says when it is told the right tokens."""

import pytest
import torch
from forced import said
from language_model import AUDIO_OFFSET, Row
from parley_core.tokens import CODEBOOK_SIZE, SEMANTIC_OFFSET
from tts import pocket_tts

pytestmark = pytest.mark.unit

PROMPT, EOT = [5, 6, 7, 8], 3
RIGHT = [10, 20, 1030, 2000, 3000, 40, 50, 1060, 4000, 5000]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pocket_tts().eval()


def row(right):
    return Row([*PROMPT, *(AUDIO_OFFSET + each for each in right), EOT], len(PROMPT))


def test_each_place_keeps_its_codebook(model):
    for seed in range(20):
        spoken = said(model, row(RIGHT), seed)
        assert len(spoken) == len(RIGHT)
        assert ((spoken >= 0) & (spoken < CODEBOOK_SIZE)).all()
        for own, right in zip(spoken, RIGHT, strict=True):
            assert (own >= SEMANTIC_OFFSET) == (right >= SEMANTIC_OFFSET)


def test_each_token_depends_on_the_right_ones_before_it_and_on_no_later(model):
    for token in model.parameters():
        # Untrained logits are nearly even: sharper, a change of what it heard shows.
        token.data.mul_(1.5)
    other = [*RIGHT[:5], 999, *RIGHT[6:]]
    before, after = said(model, row(RIGHT), 1), said(model, row(other), 1)
    assert before[:6].tolist() == after[:6].tolist()
    assert before[6:].tolist() != after[6:].tolist()
