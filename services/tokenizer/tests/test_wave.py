"""Conditioning of recordings where the reference gives no number."""

from itertools import pairwise

import numpy as np
import pytest
from parley_tokenizer.level import RunningPeak
from parley_tokenizer.wave import prepare, set_peak, speech_bounds, trim_silence

pytestmark = pytest.mark.unit


def test_a_low_rate_is_raised() -> None:
    tone = np.sin(np.arange(8000) * 2 * np.pi * 440 / 8000).astype(np.float32)
    raised = prepare(tone, 8000, level=False)
    assert len(raised) == 16000
    expected = np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000)
    np.testing.assert_allclose(raised[200:-200], expected[200:-200], atol=5e-3)


def test_silence_and_nothing_pass_through() -> None:
    assert not set_peak(np.zeros(100, np.float32)).any()
    assert len(set_peak(np.zeros(0, np.float32))) == 0
    assert speech_bounds(np.zeros(100, np.float32)) == (0, 100)
    assert trim_silence(np.zeros(0, np.float32)).shape == (4320,)


def test_running_peak_only_lowers_its_gain_and_ends_at_the_reference_level() -> None:
    level = RunningPeak(assumed_peak=0.1)
    noise = np.random.default_rng(2).uniform(-0.8, 0.8, 3840 * 8)
    wave = (noise * np.linspace(0.01, 1, 3840 * 8) ** 2).astype(np.float32)
    blocks = wave.reshape(8, 3840)
    scaled = [level.apply(block) for block in blocks]
    gains = [
        np.median(np.abs(after[200:]) / np.maximum(np.abs(before[200:]), 1e-6))
        for before, after in zip(blocks, scaled, strict=True)
    ]
    assert all(later <= earlier + 1e-4 for earlier, later in pairwise(gains))
    assert gains[0] == pytest.approx(0.999 / 0.1, rel=1e-3)
    assert max(np.abs(block).max() for block in scaled) <= 1.0
    assert gains[-1] == pytest.approx(0.999 / np.abs(wave).max(), rel=1e-3)
