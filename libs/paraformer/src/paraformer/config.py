"""Configuration of a Paraformer-online checkpoint, read from its FunASR ``config.yaml``.

Contract: `ParaformerConfig.from_yaml` gives the dimensions the checkpoint was made with and
refuses, by name, every option that would change the arithmetic in a way this package does not
compute. Unknown keys that do not touch inference (dropout, training weights) are ignored. Not for
service settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

SAMPLE_RATE = 16000
"""Sample rate of everything in this package, in Hz."""


class ConfigError(ValueError):
    """The configuration is incomplete or asks for arithmetic that is not implemented."""


@dataclass(frozen=True)
class FrontendConfig:
    """Kaldi filter banks stacked to a low frame rate (LFR). Lengths are in samples at 16 kHz."""

    mel_bins: int = 80
    frame_length: int = 400
    frame_shift: int = 160
    window: str = "hamming"
    lfr_m: int = 7
    lfr_n: int = 6
    dither: float = 1.0
    """What the checkpoint asks for, in steps of 16-bit samples. The caller decides (spec 1.3)."""

    @property
    def feature_size(self) -> int:
        """Width of a stacked frame: 560 for the published checkpoint."""
        return self.mel_bins * self.lfr_m

    @property
    def stacked_shift(self) -> int:
        """Samples between two stacked frames: 960 (60 ms) for the published checkpoint."""
        return self.frame_shift * self.lfr_n


@dataclass(frozen=True)
class EncoderConfig:
    """SANM chunk-opt encoder (spec 1.3)."""

    input_size: int
    output_size: int
    attention_heads: int
    linear_units: int
    num_blocks: int
    kernel_size: int = 11

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.output_size // self.attention_heads


@dataclass(frozen=True)
class ChunkConfig:
    """How the stream is cut: chosen by whoever runs the model, not by the checkpoint (spec 1.3).

    The reference's ``chunk_size = [0, 4, 5]`` acts as 5 frames of left context and no look-ahead.
    """

    frames: int = 4
    left_context: int = 5
    look_back: int = 4

    @property
    def cache_rows(self) -> int:
        """Key and value rows that each layer keeps: 16."""
        return self.frames * self.look_back


@dataclass(frozen=True)
class ParaformerConfig:
    """What ``config.yaml`` says; ``raw`` also holds the sections of decoder and predictor."""

    frontend: FrontendConfig
    encoder: EncoderConfig
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_yaml(cls, document: object) -> "ParaformerConfig":
        """Reads a parsed ``config.yaml``.

        Raises:
            ConfigError: one line that names the key.
        """
        root = Section(document, "config.yaml")
        encoder = root.section("encoder_conf")
        frontend = root.section("frontend_conf")
        root.require("encoder", "SANMEncoderChunkOpt")
        encoder.require("input_layer", "pe_online")
        encoder.require("normalize_before", True, default=True)
        encoder.require("selfattention_layer_type", "sanm")
        encoder.require("sanm_shfit", 0, default=0)
        frontend.require("fs", SAMPLE_RATE, default=SAMPLE_RATE)
        frontend.require("window", "hamming", default="hamming")
        frontend_config = FrontendConfig(
            mel_bins=frontend.positive("n_mels", default=80),
            frame_length=frontend.positive("frame_length", default=25) * SAMPLE_RATE // 1000,
            frame_shift=frontend.positive("frame_shift", default=10) * SAMPLE_RATE // 1000,
            lfr_m=frontend.positive("lfr_m"),
            lfr_n=frontend.positive("lfr_n"),
            dither=frontend.number("dither", default=1.0),
        )
        encoder_config = EncoderConfig(
            input_size=frontend_config.feature_size,
            output_size=encoder.positive("output_size"),
            attention_heads=encoder.positive("attention_heads"),
            linear_units=encoder.positive("linear_units"),
            num_blocks=encoder.positive("num_blocks"),
            kernel_size=encoder.positive("kernel_size", default=11),
        )
        if encoder_config.output_size % encoder_config.attention_heads:
            encoder.fail("attention_heads", "does not divide output_size")
        if encoder_config.kernel_size % 2 == 0:
            encoder.fail("kernel_size", "must be odd")
        if frontend_config.lfr_m < frontend_config.lfr_n:
            frontend.fail("lfr_m", "must not be less than lfr_n")
        return cls(frontend=frontend_config, encoder=encoder_config, raw=root.values)


class Section:
    """A mapping of the document that reports errors by their path."""

    def __init__(self, values: object, path: str) -> None:
        self.path = path
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: expected a mapping, found {type(values).__name__}")
        self.values: Mapping[str, Any] = values

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raises `ConfigError` that names the key."""
        raise ConfigError(f"{self.path}: {key} {problem}")

    def section(self, key: str) -> "Section":
        """The mapping below a key."""
        if key not in self.values:
            self.fail(key, "is missing")
        return Section(self.values[key], f"{self.path}: {key}")

    def require(self, key: str, wanted: object, default: object = None) -> None:
        """Refuses any other value; ``default`` stands for a key that is absent."""
        found = self.values.get(key, default)
        if found != wanted:
            self.fail(key, f"is {found!r}, only {wanted!r} is implemented")

    def number(self, key: str, default: float | None = None) -> float:
        """A number; without a default the key must be there."""
        value = self.values.get(key, default)
        if value is None:
            self.fail(key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, f"must be a number, found {value!r}")
        return float(value)

    def positive(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.number(key, default)
        if value <= 0 or value != int(value):
            self.fail(key, f"must be a positive integer, found {value!r}")
        return int(value)
