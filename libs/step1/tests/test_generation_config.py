import json
import math

import pytest
from step1.config import ConfigError
from step1.generation_config import FILE, SamplingDefaults

pytestmark = pytest.mark.unit

PUBLISHED = SamplingDefaults(0.7, 0.9, 50)


def written(folder, content):
    (folder / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_checkpoint_without_the_file_says_nothing(tmp_path):
    assert PUBLISHED.of_checkpoint(tmp_path) == PUBLISHED


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, PUBLISHED),
        ({"bos_token_id": 1, "eos_token_id": 3, "temperature": None}, PUBLISHED),
        ({"temperature": 0.3}, SamplingDefaults(0.3, 0.9, 50)),
        ({"do_sample": True, "top_p": 1, "top_k": 0}, SamplingDefaults(0.7, 1.0, 0)),
        ({"do_sample": False, "temperature": 0.7}, SamplingDefaults(0.0, 0.9, 50)),
    ],
)
def test_what_the_checkpoint_says_wins_over_what_is_usual(tmp_path, content, expected):
    assert PUBLISHED.of_checkpoint(written(tmp_path, content)) == expected


def test_the_service_wins_over_the_checkpoint(tmp_path):
    chosen = PUBLISHED.of_checkpoint(written(tmp_path, {"temperature": 0.3, "top_k": 5}))
    assert chosen.but(temperature=0.0, top_p=None, top_k=None) == SamplingDefaults(0.0, 0.9, 5)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": 3}, "temperature must be between 0 and 2"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"top_p": True}, "top_p must be a number"),
        ({"top_k": math.inf}, "top_k must be a number"),
        ({"top_k": math.nan}, "top_k must be a number"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_by_name(tmp_path, content, word):
    with pytest.raises(ConfigError, match=word) as caught:
        PUBLISHED.of_checkpoint(written(tmp_path, content))
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)
