"""What is done to rendered speech before a model hears it."""

import numpy as np
import pytest
from parley_core.tokens import GROUP_DURATION
from speech import (
    BEHIND,
    EDGE,
    SAMPLE_RATE,
    Utterance,
    between_silences,
    in_whole_groups,
)

pytestmark = pytest.mark.unit

PHONES = (("pau", 0.25), ("hh", 0.35), ("ay", 0.6), ("pau", 0.8))


def _word() -> np.ndarray:
    """Every sample is another, so that it tells where it comes from; 0.8 s."""
    return np.arange(1, int(0.8 * SAMPLE_RATE) + 1, dtype=np.float32)


def _kept(seed: int) -> tuple[int, int, int, int]:
    """Samples of silence before, first and last sample of the recording, silence behind."""
    heard = between_silences(_word(), PHONES, seed)
    sound = np.flatnonzero(heard)
    kept = heard[sound[0] : sound[-1] + 1]
    assert (np.diff(kept) == 1).all()
    return sound[0], int(kept[0]) - 1, int(kept[-1]), heard.size - 1 - sound[-1]


def test_no_sample_of_a_word_is_cut_away() -> None:
    for seed in range(200):
        _, first, last, _ = _kept(seed)
        assert first <= (0.25 - EDGE) * SAMPLE_RATE
        assert last >= int((0.6 + EDGE) * SAMPLE_RATE)


def test_some_utterances_begin_and_end_with_the_word_and_others_in_long_silence() -> None:
    kept = [_kept(seed) for seed in range(200)]
    assert any(not before and first > 0.15 * SAMPLE_RATE for before, first, _, _ in kept)
    assert any(not behind and last < 0.68 * SAMPLE_RATE for _, _, last, behind in kept)
    assert any(before > 0.3 * SAMPLE_RATE for before, _, _, _ in kept)
    assert any(behind > 0.3 * SAMPLE_RATE for _, _, _, behind in kept)


def test_half_of_the_utterances_stay_as_they_are() -> None:
    same = sum(np.array_equal(between_silences(_word(), PHONES, n), _word()) for n in range(400))
    assert 160 <= same <= 240


def test_a_recording_shorter_than_its_phone_times_stays_whole() -> None:
    short = _word()[: int(0.58 * SAMPLE_RATE)]
    for seed in range(50):
        assert short[-1] in between_silences(short, PHONES, seed)


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.2])
def test_an_utterance_to_be_tokenised_ends_in_a_pause_and_with_a_group(pause: float) -> None:
    group = round(GROUP_DURATION.total_seconds() * SAMPLE_RATE)
    for length in np.arange(0.5, 0.9, 0.01):
        samples = np.ones(int((length + pause) * SAMPLE_RATE), np.float32)
        phones = (("hh", 0.2), ("ay", float(length)), ("pau", float(length) + pause))
        whole = in_whole_groups(Utterance(samples, phones))
        assert whole.size % group == 0
        assert whole.size >= (length + BEHIND) * SAMPLE_RATE - 1
        assert whole.size < max(samples.size, (length + BEHIND) * SAMPLE_RATE) + group
        assert whole.sum() == samples.size
