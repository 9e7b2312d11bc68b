"""What the flow is trained on stands as it is served: answers behind the plain prompt."""

import flow
import numpy as np
import pytest

pytestmark = pytest.mark.unit

TOKENS = 400


def item(number: int, *, answer: bool, plain: bool) -> flow.Item:
    """An utterance whose ids, mel and speaker vector all tell its number."""
    frames = flow.frame_of(TOKENS) + 5
    return flow.Item(
        np.full(TOKENS, number, np.int16),
        np.full((frames, 80), number, np.float32),
        np.full(192, number, np.float32),
        answer,
        plain,
    )


QUESTION, PLAIN, HAPPY, RAP = 1, 2, 3, 4
DATA = [
    item(QUESTION, answer=False, plain=False),
    item(PLAIN, answer=True, plain=True),
    item(PLAIN + 10, answer=True, plain=True),
    item(HAPPY, answer=True, plain=False),
    item(RAP, answer=False, plain=False),
]


def test_a_styled_answer_has_prompt_and_speaker_of_plain_ones_and_others_their_own() -> None:
    seen = set()
    for seed in range(60):
        made = flow.crops(DATA, seed)
        prompt = int(made["prompt"])
        frames = flow.frame_of(prompt)
        for ids, mel, speaker in zip(made["ids"], made["mel"], made["speaker"], strict=True):
            said, led = int(ids[-1]), int(speaker[0])
            assert led in {QUESTION: {QUESTION}, RAP: {RAP}}.get(said, {PLAIN, PLAIN + 10})
            assert (ids[:prompt] == led).all()
            assert (ids[prompt:] == said).all()
            assert (mel[:, :frames] == led).all()
            assert (mel[:, frames:] == said).all()
            assert led != said or said in (QUESTION, RAP)
            seen.add((said, prompt > 0))
    assert {
        (number, prompted) for number in (QUESTION, HAPPY, RAP) for prompted in (True, False)
    } <= seen
