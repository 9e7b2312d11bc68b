"""What the flow learns from: crops whose sound is that of their tokens."""

from dataclasses import replace

import numpy as np
import pytest
from flow import GROUP, Crops, Item, frame_of

pytestmark = pytest.mark.unit

LENGTHS = (22, 45, 60, 85, 103, 130, 160)
SAID = 10_000
MANNERS = {"": "", "快速2": "", "RAP": "RAP"}


@pytest.fixture(scope="module")
def items():
    """Utterances whose ids, frames and speaker each tell which one it is and what place in it."""
    made = []
    for manner in (*MANNERS, None):
        for length in LENGTHS:
            number = len(made)
            frames = np.arange(frame_of(length))
            made.append(
                Item(
                    (number * 170 + np.arange(length)).astype(np.int16),
                    np.repeat(1000.0 * number + frames[:, None], 80, axis=1).astype(np.float32),
                    np.full(192, number, np.float32),
                    None if manner is None else MANNERS[manner],
                    manner or "",
                )
            )
    return made


def test_the_mel_of_a_crop_is_that_of_its_tokens_behind_a_prompt_as_served(items):
    crops, ways = Crops(items), set()
    for seed in range(120):
        batch = crops.batch(seed)
        prompt, length = int(batch["prompt"]), batch["ids"].shape[1]
        frames = frame_of(prompt) + frame_of(length - prompt)
        assert batch["mel"].shape == (len(batch["ids"]), 80, frames)
        for ids, mel, speaker in zip(
            batch["ids"].numpy(), batch["mel"].numpy(), batch["speaker"].numpy(), strict=True
        ):
            pieces = [(0, prompt, 0), (prompt, length, frame_of(prompt))]
            numbers, places = [], []
            for begin, end, frame in pieces[prompt == 0 :]:
                number, place = divmod(int(ids[begin]), 170)
                assert place % GROUP == 0
                assert ids[begin:end].tolist() == list(range(ids[begin], ids[begin] + end - begin))
                first = 1000 * number + frame_of(place)
                told = mel[0, frame : frame + frame_of(end - begin)]
                assert told.tolist() == list(range(first, first + frame_of(end - begin)))
                numbers.append(number)
                places.append(place)
            assert (speaker == numbers[0]).all()
            if not prompt:
                ways.add("alone")
            elif places[1] == places[0] + prompt and numbers[0] == numbers[1]:
                ways.add("continued")
            else:
                ways.add("apart")
                before, item = (items[number] for number in numbers)
                assert before.tag == before.manner == item.manner
                assert len(before.ids) - places[0] - prompt < GROUP, "not the end of it"
    assert ways == {"alone", "continued", "apart"}


def test_a_batch_is_the_same_for_the_same_seed(items):
    first, second = (Crops(items).batch(7) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_what_the_model_says_stands_behind_right_prompts_in_half_of_the_crops(items):
    told = [replace(item, said=item.ids + SAID) for item in items if item.manner is not None]
    crops, forced, whole = Crops(told), 0, 0
    for seed in range(60):
        batch = crops.batch(seed)
        prompt = int(batch["prompt"])
        for ids in batch["ids"].numpy():
            assert (ids[:prompt] < SAID).all()
            rest = ids[prompt:] >= SAID
            assert rest.all() or not rest.any()
            forced, whole = forced + rest.all(), whole + 1
    assert 0.4 < forced / whole < 0.6
