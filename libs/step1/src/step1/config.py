"""`config.json` of a Step-1 checkpoint as a typed, checked value.

Invariants: heads divide the hidden size, KV groups divide the heads, the audio ids fit the
vocabulary. Defaults are those of the published configuration class (spec 2.1), save one: a missing
tie flag means an untied head, because every published checkpoint is untied (spec 2.3).
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

AUDIO_CODES = 5120
"""Dual-code ids: 1024 linguistic, then 4096 semantic."""

# Keys of other Step-1 builds that change the computation (spec 2.2, 9): ignored, they would give
# wrong answers without an error.
_FORK_KEYS: dict[str, Any] = {
    "max_pos_interp_ratio": 1,
    "logit_scale": 1,
    "attention_bias": False,
    "mlp_bias": False,
}


class ConfigError(ValueError):
    """`config.json` is missing, unreadable or contradicts itself. The message is one line."""


@dataclass(frozen=True, slots=True)
class Step1Config:
    """Dimensions and ids of one Step-1 checkpoint (spec 2.1, 3.1).

    Attributes:
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the SwiGLU layer.
        num_attention_heads: Query heads.
        num_attention_groups: Key/value heads; each serves `heads_per_group` consecutive heads.
        num_hidden_layers: Decoder layers.
        max_seq_len: Context length in tokens, prompt and reply together.
        vocab_size: Rows of the embedding table, padding rows included.
        rms_norm_eps: Epsilon of every RMSNorm.
        bos_token_id: `<s>`.
        pad_token_id: `<unk>`, used as padding.
        eos_token_id: `<|EOT|>`, which ends a turn and generation.
        tie_word_embeddings: Whether the head shares the embedding table.
        audio_token_offset: Vocabulary id of dual-code id 0.
        alibi_slopes: One slope a query head, where the checkpoint lists them; otherwise they
            follow from the head count.
        stub_weights: The weights are seeded random numbers (`step1.seeded` writes this key).
    """

    hidden_size: int = 5120
    intermediate_size: int = 13312
    num_attention_heads: int = 40
    num_attention_groups: int = 8
    num_hidden_layers: int = 48
    max_seq_len: int = 4096
    vocab_size: int = 65536
    rms_norm_eps: float = 1e-5
    bos_token_id: int = 1
    pad_token_id: int = 0
    eos_token_id: int = 3
    tie_word_embeddings: bool = False
    audio_token_offset: int = 65536
    alibi_slopes: tuple[float, ...] | None = None
    stub_weights: bool = False

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_attention_groups",
            "num_hidden_layers",
            "max_seq_len",
            "vocab_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of"
                f" num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_attention_groups:
            raise ConfigError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of"
                f" num_attention_groups {self.num_attention_groups}"
            )
        if self.alibi_slopes is not None and len(self.alibi_slopes) != self.num_attention_heads:
            raise ConfigError(
                f"alibi_slopes has {len(self.alibi_slopes)} entries"
                f" for {self.num_attention_heads} heads"
            )
        for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(f"{name} {getattr(self, name)} is outside the vocabulary")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_attention_heads // self.num_attention_groups

    @property
    def has_audio_tokens(self) -> bool:
        """Whether the vocabulary holds the dual-code ids."""
        return self.audio_token_offset + AUDIO_CODES <= self.vocab_size

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of key/value cache that one token takes over all layers (130B in bf16: 352 KiB)."""
        values = 2 * self.num_hidden_layers * self.num_attention_groups * self.head_dim
        return values * bytes_per_value

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the keys that matter; others (`torch_dtype`, `auto_map` ...) are ignored.

        Raises:
            ConfigError: A value has the wrong type or the dimensions contradict each other.
        """
        model_type = data.get("model_type", "step1")
        if model_type != "step1":
            raise ConfigError(f"model_type is {model_type!r}, not 'step1'")
        for key, neutral in _FORK_KEYS.items():
            if data.get(key, neutral) not in (neutral, None):
                raise ConfigError(f"{key} {data[key]!r} is not supported, only {neutral!r}")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in data or data[field.name] is None:
                continue
            values[field.name] = _checked(field.name, data[field.name])
        return cls(**values)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read `config.json` in a checkpoint folder.

        Raises:
            ConfigError: The file is missing, is not JSON, or `from_dict` refuses it.
        """
        path = Path(folder) / "config.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path} is not a JSON object")
        try:
            return cls.from_dict(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _checked(name: str, value: Any) -> Any:
    if name == "alibi_slopes":
        if not isinstance(value, list | tuple) or not all(is_number(item) for item in value):
            raise ConfigError("alibi_slopes must be a list of numbers")
        return tuple(float(item) for item in value)
    if name in {"tie_word_embeddings", "stub_weights"}:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false")
        return value
    if name == "rms_norm_eps":
        if not is_number(value):
            raise ConfigError("rms_norm_eps must be a number")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, not {value!r}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    # JSON as Python reads it also has NaN and Infinity, and whole numbers beyond every float.
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max
