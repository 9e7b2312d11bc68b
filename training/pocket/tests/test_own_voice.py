"""What the TTS model says by itself, many answers at once."""

import numpy as np
import pytest
import torch
from language_model import AUDIO_OFFSET
from own_voice import between, sampled
from parley_core.tokens import CODEBOOK_SIZE
from speech import PAUSE, SAMPLE_RATE, _end
from tts import pocket_tts

pytestmark = pytest.mark.unit

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
END = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = pocket_tts().eval()
    # So sharp that chance decides nothing.
    model.lm_head.weight.data.mul_(2000)
    return model


def alone(model, prompt, count):
    said = []
    with torch.inference_mode():
        for _ in range(count):
            hidden = model.hidden(torch.tensor([prompt + said]))[0, -1]
            logits = model.lm_head(hidden)
            logits[:AUDIO_OFFSET] = -torch.inf
            said.append(int(logits.argmax()))
    return [each - AUDIO_OFFSET for each in said]


def test_many_at_once_say_what_each_says_alone(model):
    for n, prompt in enumerate(PROMPTS):
        said = alone(model, prompt, 6)
        end = next(each for each in said[2:] if each not in said[:2])
        spoken = sampled(model, PROMPTS, AUDIO_OFFSET + end, seed=n)
        assert spoken[n] == said[: said.index(end)]


def test_what_does_not_end_is_left_out(model):
    never = next(each for each in range(CODEBOOK_SIZE) if each not in alone(model, PROMPTS[0], 6))
    assert sampled(model, PROMPTS[:1], AUDIO_OFFSET + never, seed=1, longest=6) == [None]


def test_the_sound_has_its_place_between_the_pauses():
    sound = np.zeros(SAMPLE_RATE, np.int16)
    sound[4000:12000] = 3000
    sound[12000:] = 20
    phones = between(sound)
    assert phones[0] == (PAUSE, 0.25)
    assert (_end(phones), phones[-1][1]) == (0.75, 1.0)
