from pathlib import Path

import pytest
from parley_vocoder.config import ConfigError, DecoderConfig, load_config
from parley_vocoder.decoder import Decoder
from parley_vocoder.seeded import _YAML

pytestmark = pytest.mark.unit


def load(tmp_path: Path, text: str) -> DecoderConfig:
    (tmp_path / "cosyvoice.yaml").write_text(text)
    return load_config(tmp_path)


def test_reads_dimensions_through_tags_and_references(tmp_path: Path) -> None:
    config = load(tmp_path, _YAML)
    assert config.flow.spk_embed_dim == 192
    assert config.flow.estimator.channels == (32, 32)
    assert config.hift.sampling_rate == config.sample_rate == 22050
    assert config.hift.samples_per_frame == 256


def test_runs_nothing_the_file_names(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    text = f"evil: !apply:os.system ['touch {canary}']\nllm: !new:os.getcwd {{}}\n" + _YAML
    load(tmp_path, text)
    assert not canary.exists()


def test_ignores_keys_it_does_not_need(tmp_path: Path) -> None:
    extra = "llm: !new:cosyvoice.llm.llm.TransformerLM\n    text_encoder: !ref <nowhere>\n"
    assert load(tmp_path, _YAML + extra) == load(tmp_path, _YAML)


def test_takes_the_mel_settings_under_any_name(tmp_path: Path) -> None:
    renamed = _YAML.replace("feat_extractor:", "mel_extractor:")
    assert load(tmp_path, renamed) == load(tmp_path, _YAML)


def test_takes_cfm_params_with_or_without_the_omegaconf_wrapper(tmp_path: Path) -> None:
    plain = _YAML.replace("!new:omegaconf.DictConfig\n            content:\n", "\n").replace(
        " " * 16, " " * 12
    )
    assert load(tmp_path, plain).flow.inference_cfg_rate == 0.7


def test_a_folder_may_say_how_many_steps_its_flow_takes(tmp_path: Path) -> None:
    rate = "inference_cfg_rate: 0.7"
    assert load(tmp_path, _YAML).flow.euler_steps == 10
    told = _YAML.replace(rate, f"{rate}\n                n_timesteps: 4")
    assert load(tmp_path, told).flow.euler_steps == 4
    with pytest.raises(ConfigError, match="n_timesteps: 0 is not 1 to 100"):
        load(tmp_path, told.replace("n_timesteps: 4", "n_timesteps: 0"))


def test_a_folder_may_say_how_much_prompt_its_flow_is_used_to(tmp_path: Path) -> None:
    rate = "inference_cfg_rate: 0.7"
    assert load(tmp_path, _YAML).flow.max_prompt_frames is None
    told = _YAML.replace(rate, f"{rate}\n                max_prompt_frames: 86")
    assert load(tmp_path, told).flow.max_prompt_frames == 86
    with pytest.raises(ConfigError, match="max_prompt_frames: 0 is not 1 or more"):
        load(tmp_path, told.replace("max_prompt_frames: 86", "max_prompt_frames: 0"))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("    vocab_size: 5120\n", "", "flow.vocab_size: missing"),
        ("num_heads: 2", "num_heads: two", "flow.decoder.estimator.num_heads"),
        ("channels: [32, 32]", "channels: 32", "flow.decoder.estimator.channels"),
        ("<spk_embed_dim>", "<elsewhere>", "flow.spk_embed_dim: cannot resolve"),
        ("flow.MaskedDiffWithXvec", "flow.CausalMaskedDiffWithXvec", "flow: Causal"),
        ("use_cnn_module: False", "use_cnn_module: True", "flow.encoder.use_cnn_module"),
        ("hop_size: 256", "hop_size: 240", "hift.upsample_rates"),
        ("in_channels: 320", "in_channels: 240", "flow.decoder.estimator.in_channels"),
        ("center: False", "center: maybe", "feat_extractor.center"),
        ("base_channels: 32", "base_channels: 32.5", "hift.base_channels"),
    ],
)
def test_names_the_key_that_is_wrong(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in _YAML
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as caught:
        load(tmp_path, _YAML.replace(old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("attention_heads: 4", "attention_heads: 0"),
        ("linear_units: 96", "linear_units: -1"),
        ("upsample_rates: [8, 8]", "upsample_rates: [4, 4, 4]"),
    ],
)
def test_sizes_that_make_no_network_are_told_with_the_file(
    tmp_path: Path, old: str, new: str
) -> None:
    (tmp_path / "cosyvoice.yaml").write_text(_YAML.replace(old, new))
    with pytest.raises(ConfigError, match=r"cosyvoice\.yaml: .* make no network: ") as caught:
        Decoder.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_yaml_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cosyvoice\.yaml: No such file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"cosyvoice\.yaml: not YAML"):
        load(tmp_path, "flow: [")
