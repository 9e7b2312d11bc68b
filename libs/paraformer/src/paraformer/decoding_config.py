"""Configuration of text decoding, from the `predictor_conf` and `decoder_conf` of `config.yaml`.

Contract: `DecodingConfig.from_checkpoint` refuses, by name, what this package does not compute.
Not for the encoder (see `paraformer.config`).
"""

from dataclasses import dataclass

from paraformer.config import ParaformerConfig, Section


@dataclass(frozen=True)
class PredictorConfig:
    """CIF predictor (CifPredictorV2)."""

    size: int
    left_order: int
    right_order: int
    threshold: float
    tail_threshold: float
    smooth_factor: float
    noise_threshold: float


@dataclass(frozen=True)
class DecoderConfig:
    """SANM decoder (ParaformerSANMDecoder)."""

    size: int
    attention_heads: int
    linear_units: int
    num_blocks: int
    kernel_size: int

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.size // self.attention_heads


@dataclass(frozen=True)
class DecodingConfig:
    """What turns encoder frames into token ids."""

    predictor: PredictorConfig
    decoder: DecoderConfig

    @classmethod
    def from_checkpoint(cls, config: ParaformerConfig) -> "DecodingConfig":
        """Reads the sections that the encoder leaves alone.

        Raises:
            ConfigError: one line that names the key.
        """
        root = Section(config.raw, "config.yaml")
        root.require("predictor", "CifPredictorV2")
        root.require("decoder", "ParaformerSANMDecoder")
        predictor = root.section("predictor_conf")
        decoder = root.section("decoder_conf")
        size = config.encoder.output_size
        predictor.require("idim", size)
        blocks = decoder.positive("num_blocks")
        # Layers without cross-attention look ahead, and only the offline model has them.
        decoder.require("att_layer_num", blocks)
        kernel = decoder.positive("kernel_size", default=21)
        if kernel % 2 == 0:
            decoder.fail("kernel_size", "must be odd")
        if decoder.values.get("sanm_shfit", 0) is not None:
            decoder.require("sanm_shfit", (kernel - 1) // 2, default=0)
        decoder.require("normalize_before", True, default=True)
        decoder.require("concat_after", False, default=False)
        heads = decoder.positive("attention_heads", default=4)
        if size % heads:
            decoder.fail("attention_heads", "does not divide the encoder's output_size")
        return cls(
            predictor=PredictorConfig(
                size=size,
                left_order=predictor.positive("l_order"),
                right_order=predictor.positive("r_order"),
                threshold=predictor.number("threshold", default=1.0),
                tail_threshold=predictor.number("tail_threshold", default=0.0),
                smooth_factor=predictor.number("smooth_factor", default=1.0),
                noise_threshold=predictor.number("noise_threshold", default=0.0),
            ),
            decoder=DecoderConfig(
                size=size,
                attention_heads=heads,
                linear_units=decoder.positive("linear_units", default=2048),
                num_blocks=blocks,
                kernel_size=kernel,
            ),
        )
