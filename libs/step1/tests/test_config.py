import json
import math

import pytest
from step1.config import ConfigError, Step1Config

pytestmark = pytest.mark.unit

CHAT_130B = {
    "model_type": "step1",
    "architectures": ["Step1ForCausalLM"],
    "hidden_size": 12288,
    "intermediate_size": 31232,
    "num_attention_heads": 96,
    "num_attention_groups": 8,
    "num_hidden_layers": 88,
    "max_seq_len": 32768,
    "vocab_size": 74752,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}


def test_published_130b_dimensions_give_the_published_kv_geometry():
    config = Step1Config.from_dict(CHAT_130B)
    assert config.head_dim == 128
    assert config.heads_per_group == 12
    assert config.kv_bytes_per_token() == 360_448
    assert config.has_audio_tokens


def test_missing_keys_take_the_class_defaults_but_the_head_is_untied():
    config = Step1Config.from_dict({})
    assert (config.hidden_size, config.intermediate_size) == (5120, 13312)
    assert (config.num_attention_heads, config.num_attention_groups) == (40, 8)
    assert (config.num_hidden_layers, config.max_seq_len, config.vocab_size) == (48, 4096, 65536)
    assert config.tie_word_embeddings is False
    assert config.audio_token_offset == 65536
    assert not config.has_audio_tokens


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_size": 100}, "num_attention_heads"),
        ({"num_attention_groups": 7}, "num_attention_groups"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"alibi_slopes": [math.inf] * 96}, "alibi_slopes"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"alibi_slopes": [0.5]}, "alibi_slopes"),
        ({"eos_token_id": 80000}, "eos_token_id"),
        ({"model_type": "llama"}, "model_type"),
        ({"max_pos_interp_ratio": 2}, "max_pos_interp_ratio"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_a_contradicting_value_is_refused_by_name(change, word):
    with pytest.raises(ConfigError, match=word):
        Step1Config.from_dict({**CHAT_130B, **change})


def test_a_broken_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        Step1Config.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        Step1Config.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match="not a JSON object"):
        Step1Config.load(tmp_path)
