import math

import pytest
import torch
from step1.alibi import alibi_slopes, sqrt_bias

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("heads", "index", "slope"),
    [
        (96, 0, 0.9170040432),
        (96, 1, 0.8408964153),
        (96, 63, 0.00390625),
        (96, 64, 0.9576032807),
        (96, 95, 0.0652671114),
        (48, 0, 0.8408964153),
        (48, 31, 0.00390625),
        (48, 32, 0.9170040432),
        (48, 47, 0.0681567333),
    ],
)
def test_slopes_equal_the_published_ones(heads, index, slope):
    assert float(alibi_slopes(heads)[index]) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("heads", range(1, 130))
def test_every_head_count_has_distinct_positive_slopes(heads):
    slopes = alibi_slopes(heads)
    assert slopes.shape == (heads,)
    assert len(set(slopes.tolist())) == heads
    assert float(slopes.min()) > 0


def test_no_head_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        alibi_slopes(0)


def test_bias_is_minus_slope_times_root_of_distance_and_causal():
    bias = sqrt_bias(torch.tensor([0.5, 0.25]), torch.tensor([0, 3]), 5)
    assert bias.shape == (2, 2, 5)
    for row, query in enumerate((0, 3)):
        for head, slope in enumerate((0.5, 0.25)):
            for key in range(5):
                expected = -slope * math.sqrt(query - key) if key <= query else -math.inf
                assert float(bias[row, head, key]) == pytest.approx(expected)
