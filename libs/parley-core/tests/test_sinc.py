import json
import os
from pathlib import Path

import numpy as np
import pytest
from parley_core.audio.sinc import resample_sinc

GOLDEN = Path(
    os.environ.get("PARLEY_GOLDEN", Path(__file__).resolve().parents[4] / "shared" / "golden")
)


@pytest.mark.golden
def test_resampled_signals_equal_the_reference() -> None:
    folder = GOLDEN / "02_wave"
    if not folder.is_dir():
        pytest.skip(f"no golden folder {folder}")
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    case = json.loads((folder / "case.json").read_text())
    compared = 0
    for signal in case["signals"]:
        name = signal["name"]
        if f"{name}.resample16k" not in outputs:
            continue
        wave = (inputs[f"{name}.wav"].astype(np.float32) / 32768).mean(0, keepdims=True)
        wanted = outputs[f"{name}.resample16k"]
        got = resample_sinc(wave, signal["sr"], 16000)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=case["tolerance"]["atol"], rtol=0)
        compared += 1
    assert compared > 0


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
