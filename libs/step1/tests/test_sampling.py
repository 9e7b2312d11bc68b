from random import Random

import numpy as np
import pytest
import torch
from step1.sampling import Draw, choose

pytestmark = pytest.mark.unit

VOCAB = 300


def rows(count, seed=0):
    return torch.randn((count, VOCAB), generator=torch.Generator().manual_seed(seed))


def draw(random, **changes):
    values = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "uniform": random.random()}
    return Draw(**{**values, **changes})


def test_temperature_zero_takes_the_most_likely():
    logits = rows(3)
    greedy = Draw(temperature=0, top_k=50, top_p=0.9, uniform=0.99)
    assert choose(logits, [greedy] * 3) == logits.argmax(-1).tolist()


def test_a_rows_choice_does_not_depend_on_the_rows_beside_it():
    random = Random(1)
    logits = rows(12)
    draws = [
        draw(
            random,
            temperature=[0.0, 0.7, 1.3][i % 3],
            top_k=[0, 5, 50][i % 3],
            top_p=[1.0, 0.9, 0.3][i % 3],
        )
        for i in range(12)
    ]
    together = choose(logits, draws)
    assert together == [choose(logits[i : i + 1], [draws[i]])[0] for i in range(12)]
    assert together[::-1] == choose(logits.flip(0), draws[::-1])


def test_frequencies_follow_the_distribution():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    random = Random(3)
    count = 4000
    drawn = choose(
        logits.expand(count, 4),
        [draw(random, temperature=1.0, top_k=0, top_p=1.0) for _ in range(count)],
    )
    share = np.bincount(drawn, minlength=4) / count
    np.testing.assert_allclose(share, [0.5, 0.25, 0.15, 0.1], atol=0.03)


def test_top_p_keeps_the_fewest_that_reach_it_and_top_k_the_k_most_likely():
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    uniforms = [i / 200 for i in range(200)]

    def support(**settings):
        base = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        draws = [Draw(**{**base, **settings}, uniform=u) for u in uniforms]
        return set(choose(logits.expand(200, 4), draws))

    assert support(top_p=0.5) == {1}
    assert support(top_p=0.6) == {1, 3}
    assert support(top_k=3) == {1, 3, 2}
    assert support() == {0, 1, 2, 3}


def test_a_banned_id_is_never_chosen():
    logits = rows(1).repeat(200, 1)
    banned = int(logits[0].argmax())
    logits[:, banned] = float("-inf")
    random = Random(0)
    assert banned not in choose(logits, [draw(random, top_k=0, top_p=1.0) for _ in range(200)])
