from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from parley_core.audio.sinc import resample_sinc
from parley_core.errors import FailedPrecondition
from parley_tts.seeded import write_seeded
from parley_tts.voices.features import PromptFeatureExtractor, load_mel_settings
from parley_tts.voices.mel import MelSettings, log_mel, resample_for_mel

pytestmark = pytest.mark.unit

SETTINGS = MelSettings(22050, 1024, 256, 1024, 80, 0, 8000)
YAML = """
sample_rate: 22050
flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: 32
    nested: !new:x.Y
        list: [1, [2, 3]]
parser: !name:print
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1024
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 256
    win_size: 1024
    fmin: 0
    fmax: 8000
    center: False
"""


def test_mel_settings_are_read_from_hyperpyyaml_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "cosyvoice.yaml"
    path.write_text(YAML)
    assert load_mel_settings(path) == SETTINGS


def test_mel_settings_are_found_under_any_name_as_by_the_vocoder(tmp_path: Path) -> None:
    path = tmp_path / "cosyvoice.yaml"
    path.write_text(YAML.replace("feat_extractor:", "mel_extractor:"))
    assert load_mel_settings(path) == SETTINGS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "WEIGHTS_MISSING"),
        ("sample_rate: 22050", "CONFIG_NOT_UNDERSTOOD"),
        ("a: [", "CONFIG_NOT_UNDERSTOOD"),
        ("- 1", "CONFIG_NOT_UNDERSTOOD"),
        (YAML.replace("center: False", "center: True"), "CONFIG_NOT_UNDERSTOOD"),
        (YAML.replace("n_fft: 1024", "n_fft: many"), "CONFIG_NOT_UNDERSTOOD"),
        (YAML.replace("!ref <sample_rate>", "!ref <nothing>"), "CONFIG_NOT_UNDERSTOOD"),
    ],
)
def test_a_broken_cosyvoice_yaml_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "cosyvoice.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FailedPrecondition) as refused:
        load_mel_settings(path)
    assert refused.value.reason == reason
    assert str(path) in refused.value.message


def test_a_missing_or_broken_speaker_model_is_named(tmp_path: Path) -> None:
    model = tmp_path / "campplus.onnx"
    with pytest.raises(FailedPrecondition) as refused:
        PromptFeatureExtractor(SETTINGS, model)
    assert refused.value.reason == "WEIGHTS_MISSING"
    model.write_bytes(b"no model")
    with pytest.raises(FailedPrecondition) as refused:
        PromptFeatureExtractor(SETTINGS, model)
    assert refused.value.reason == "WEIGHTS_BROKEN"


@pytest.mark.parametrize(("bins", "size"), [(40, 192), (80, 191)])
def test_a_speaker_model_of_another_shape_is_refused_at_once(
    tmp_path: Path, bins: int, size: int
) -> None:
    model = tmp_path / "campplus.onnx"
    weight = numpy_helper.from_array(np.zeros((bins, size), np.float32), "weight")
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["output"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {"input": ["B", "T", bins], "output": ["B", size]}.items()
    ]
    graph = helper.make_graph(nodes, "other", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(model))
    with pytest.raises(FailedPrecondition, match="is another network") as refused:
        PromptFeatureExtractor(SETTINGS, model)
    assert refused.value.reason == "WEIGHTS_BROKEN"
    assert str(model) in refused.value.message
    assert "\n" not in refused.value.message


def test_a_tone_lights_up_the_mel_bin_of_its_frequency() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050).astype(np.float32)
    mel = log_mel(tone, SETTINGS)
    assert mel.shape == (22050 // 256, 80)
    # 1 kHz is 15 mel of 45.25 mel over 81 bin spacings.
    assert (mel.argmax(axis=1)[2:-2] == 26).all()


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 44101])
def test_both_resamplers_agree(rate: int) -> None:
    wave = np.random.default_rng(0).standard_normal(rate // 3).astype(np.float32)
    got, wanted = resample_for_mel(wave, rate, 22050), resample_sinc(wave, rate, 22050)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_a_speaker_model_of_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    write_seeded(tmp_path, tmp_path)
    model = onnx.load(tmp_path / "campplus.onnx")
    (bias,) = (each for each in model.graph.initializer if each.name == "linear.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(192, np.nan, np.float32), bias.name))
    onnx.save(model, str(tmp_path / "campplus.onnx"))
    with pytest.raises(FailedPrecondition, match="not finite"):
        PromptFeatureExtractor(SETTINGS, tmp_path / "campplus.onnx")
