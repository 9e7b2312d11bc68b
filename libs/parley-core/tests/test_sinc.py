import numpy as np
import pytest
from parley_core.audio.sinc import resample_sinc


@pytest.mark.unit
@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (44100, 22050), (44101, 16000)])
def test_a_tone_keeps_its_frequency_and_length(source: int, target: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(source) / source).astype(np.float32)
    got = resample_sinc(tone, source, target)
    assert got.shape == (target,)
    wanted = np.sin(2 * np.pi * 440 * np.arange(target) / target)
    np.testing.assert_allclose(got[200:-200], wanted[200:-200], atol=2e-3)


@pytest.mark.unit
def test_channels_are_resampled_one_by_one() -> None:
    rng = np.random.default_rng(0)
    stereo = rng.standard_normal((2, 3001)).astype(np.float32)
    both = resample_sinc(stereo, 22050, 16000)
    np.testing.assert_allclose(both[1], resample_sinc(stereo[1], 22050, 16000), atol=1e-5)
    assert resample_sinc(stereo[:, :0], 22050, 16000).shape == (2, 0)


@pytest.mark.unit
def test_a_rate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        resample_sinc(np.zeros(4, np.float32), 0, 16000)
