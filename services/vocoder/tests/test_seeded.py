from pathlib import Path

import numpy as np
import pytest
import torch
from material import spoken, voice, whole_alone
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import WholeDecode, run_alone
from parley_vocoder.seeded import write_seeded

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=list(FlowModel))
def either(request: pytest.FixtureRequest, weights: Path) -> Decoder:
    return Decoder.load(weights / request.param.value)


def test_sound_is_audible_and_never_clipped(either: Decoder) -> None:
    for seed in range(3):
        samples = whole_alone(either, voice(8 * seed, seed), spoken(40, seed), seed).samples
        assert 0.05 < np.sqrt(np.square(samples).mean()) < 0.2
        assert np.abs(samples).max() < 0.9
        assert abs(samples.mean()) < 0.02


def test_pitch_is_that_of_a_voice_and_follows_the_tokens(either: Decoder) -> None:
    contours = [pitch(either, spoken(40, seed)) for seed in (1, 2)]
    for contour in contours:
        assert 130 < contour.mean() < 170
        assert np.quantile(contour, 0.02) > 75
        assert np.quantile(contour, 0.98) < 225
        assert contour.std() > 8
    assert abs(np.corrcoef(*contours)[0, 1]) < 0.5


def test_loudness_follows_the_tokens(decoder: Decoder) -> None:
    def envelope(tokens: list[int], seed: int) -> np.ndarray:
        samples = whole_alone(decoder, voice(), tokens, seed).samples
        return np.sqrt(np.square(samples[: len(samples) // 512 * 512].reshape(-1, 512)).mean(1))

    same = np.corrcoef(envelope(spoken(40, 1), 1), envelope(spoken(40, 1), 2))[0, 1]
    other = np.corrcoef(envelope(spoken(40, 1), 1), envelope(spoken(40, 2), 1))[0, 1]
    assert same > 0.8
    assert other < 0.5


def test_the_seed_fixes_the_weights(weights: Path, tmp_path: Path) -> None:
    write_seeded(tmp_path, seed=0)
    for path in sorted(tmp_path.glob("*/*.pt")):
        ours = torch.load(weights / path.relative_to(tmp_path), weights_only=True)
        again = torch.load(path, weights_only=True)
        assert all(torch.equal(ours[name], again[name]) for name in ours)
    common, music = (
        torch.load(tmp_path / model.value / "flow.pt", weights_only=True) for model in FlowModel
    )
    assert common.keys() == music.keys()
    assert not torch.equal(common["input_embedding.weight"], music["input_embedding.weight"])


def pitch(decoder: Decoder, tokens: list[int]) -> np.ndarray:
    """F0 per mel frame, Hz, without the edges."""
    decode = WholeDecode(decoder, decoder.voice(voice()), SeededNoise(0))
    decode.push(tokens)
    decode.end()
    heard: list[torch.Tensor] = []
    handle = decoder.hift.f0_predictor.register_forward_hook(
        lambda module, inputs, output: heard.append(output)
    )
    run_alone(decoder, decode)
    handle.remove()
    return heard[0][0, 6:-6].numpy()
