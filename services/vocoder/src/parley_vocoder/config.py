"""What `cosyvoice.yaml` says about a v1 decoder folder (spec sections 4.1 and 4.2).

Every key that inference does not need is ignored; a value that names another architecture is
refused. Not for: how the file is written (`parley_core.hyperpyyaml`), weights (`checkpoint`),
service settings (`settings`), the v2 decoder (section 4b).
"""

from dataclasses import dataclass
from pathlib import Path

from parley_core.hyperpyyaml import ConfigError, Section, load, mel_analysis

__all__ = ["ConfigError", "DecoderConfig", "load_config"]

EULER_STEPS = 10
"""Steps of the solver where the folder does not say: what the reference takes."""
MOST_EULER_STEPS = 100


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Conformer encoder over token embeddings (relative positions, no convolution module)."""

    input_size: int
    output_size: int
    attention_heads: int
    linear_units: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    """The velocity U-Net of the flow."""

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    attention_head_dim: int
    num_heads: int
    n_blocks: int
    num_mid_blocks: int


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Tokens to mel: embedding, encoder, length regulator, conditional flow matching.

    Attributes:
        euler_steps: of the solver, `n_timesteps` beside `inference_cfg_rate`; published folders
            leave it to the caller, who takes 10.
        max_prompt_frames: longest voice prompt that a window may carry, `max_prompt_frames` beside
            it, in mel frames; published folders set no limit. A flow that was trained on short
            prompts gains nothing by long ones, and every window pays for them.
    """

    input_size: int
    output_size: int
    spk_embed_dim: int
    vocab_size: int
    input_frame_rate: float
    regulator_channels: int
    regulator_blocks: int
    inference_cfg_rate: float
    t_scheduler: str
    encoder: EncoderConfig
    estimator: EstimatorConfig
    euler_steps: int = EULER_STEPS
    max_prompt_frames: int | None = None


@dataclass(frozen=True, slots=True)
class HiftConfig:
    """Mel to wave: f0 predictor, harmonic source, iSTFT generator."""

    in_channels: int
    base_channels: int
    nb_harmonics: int
    sampling_rate: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    istft_n_fft: int
    istft_hop: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    f0_channels: int

    @property
    def samples_per_frame(self) -> int:
        """Audio samples produced for one mel frame."""
        product = self.istft_hop
        for rate in self.upsample_rates:
            product *= rate
        return product


@dataclass(frozen=True, slots=True)
class MelConfig:
    """The mel analysis that made the prompt features and that the decoder was trained on."""

    n_fft: int
    num_mels: int
    sampling_rate: int
    hop_size: int
    win_size: int
    fmin: float
    fmax: float
    center: bool


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """One decoder folder, whole."""

    sample_rate: int
    flow: FlowConfig
    hift: HiftConfig
    mel: MelConfig


def load_config(folder: Path) -> DecoderConfig:
    """Read `folder/cosyvoice.yaml`.

    Raises:
        ConfigError: the file is missing, is not YAML, lacks a needed key, holds a value of the
            wrong type, or describes another architecture; the message names the key.
    """
    path = folder / "cosyvoice.yaml"
    try:
        return _decoder(load(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _decoder(top: Section) -> DecoderConfig:
    flow = _flow(top.section("flow"))
    hift = _hift(top.section("hift"))
    mel = _mel(mel_analysis(top))
    sample_rate = top.integer("sample_rate", hift.sampling_rate)
    if hift.samples_per_frame != mel.hop_size:
        raise ConfigError(
            f"hift.upsample_rates: {hift.samples_per_frame} samples a frame, "
            f"but feat_extractor.hop_size is {mel.hop_size}"
        )
    if not sample_rate == hift.sampling_rate == mel.sampling_rate:
        raise ConfigError("sample_rate: differs from hift or feat_extractor sampling_rate")
    if not flow.output_size == hift.in_channels == mel.num_mels:
        raise ConfigError("flow.output_size: differs from hift.in_channels or num_mels")
    return DecoderConfig(sample_rate, flow, hift, mel)


def _flow(flow: Section) -> FlowConfig:
    flow.demand_class("MaskedDiffWithXvec")
    encoder = flow.section("encoder")
    encoder.demand_class("ConformerEncoder")
    encoder.demand("normalize_before", True)
    encoder.demand("input_layer", "linear")
    encoder.demand("pos_enc_layer_type", "rel_pos_espnet")
    encoder.demand("selfattention_layer_type", "rel_selfattn")
    encoder.demand("use_cnn_module", False)
    encoder.demand("macaron_style", False)
    regulator = flow.section("length_regulator")
    regulator.demand_class("InterpolateRegulator")
    decoder = flow.section("decoder")
    decoder.demand_class("ConditionalCFM")
    cfm = decoder.section("cfm_params")
    cfm = cfm.section("content") if cfm.class_name == "DictConfig" else cfm
    cfm.demand("solver", "euler")
    scheduler = cfm.text("t_scheduler", "cosine")
    if scheduler not in {"cosine", "linear"}:
        raise ConfigError(f"flow.decoder.cfm_params.t_scheduler: unknown schedule {scheduler!r}")
    steps = cfm.integer("n_timesteps", EULER_STEPS)
    if not 1 <= steps <= MOST_EULER_STEPS:
        raise ConfigError(f"flow.decoder.cfm_params.n_timesteps: {steps} is not 1 to 100")
    longest = cfm.integer("max_prompt_frames") if cfm.has("max_prompt_frames") else None
    if longest is not None and longest < 1:
        raise ConfigError(f"flow.decoder.cfm_params.max_prompt_frames: {longest} is not 1 or more")
    config = FlowConfig(
        input_size=flow.integer("input_size"),
        output_size=flow.integer("output_size"),
        spk_embed_dim=flow.integer("spk_embed_dim"),
        vocab_size=flow.integer("vocab_size"),
        input_frame_rate=flow.number("input_frame_rate"),
        regulator_channels=regulator.integer("channels"),
        regulator_blocks=len(regulator.integers("sampling_ratios")),
        inference_cfg_rate=cfm.number("inference_cfg_rate"),
        t_scheduler=scheduler,
        euler_steps=steps,
        max_prompt_frames=longest,
        encoder=EncoderConfig(
            input_size=encoder.integer("input_size"),
            output_size=encoder.integer("output_size"),
            attention_heads=encoder.integer("attention_heads"),
            linear_units=encoder.integer("linear_units"),
            num_blocks=encoder.integer("num_blocks"),
        ),
        estimator=_estimator(decoder.section("estimator")),
    )
    if config.input_frame_rate <= 0:
        raise ConfigError("flow.input_frame_rate: must be positive")
    if config.estimator.in_channels != 4 * config.output_size:
        raise ConfigError(
            "flow.decoder.estimator.in_channels: must be 4 x output_size (x, mu, speaker, prompt)"
        )
    return config


def _estimator(estimator: Section) -> EstimatorConfig:
    estimator.demand_class("ConditionalDecoder")
    estimator.demand("act_fn", "gelu")
    return EstimatorConfig(
        in_channels=estimator.integer("in_channels"),
        out_channels=estimator.integer("out_channels"),
        channels=estimator.integers("channels"),
        attention_head_dim=estimator.integer("attention_head_dim"),
        num_heads=estimator.integer("num_heads"),
        n_blocks=estimator.integer("n_blocks"),
        num_mid_blocks=estimator.integer("num_mid_blocks"),
    )


def _hift(hift: Section) -> HiftConfig:
    hift.demand_class("HiFTGenerator")
    istft = hift.section("istft_params")
    f0 = hift.section("f0_predictor")
    f0.demand_class("ConvRNNF0Predictor")
    return HiftConfig(
        in_channels=hift.integer("in_channels"),
        base_channels=hift.integer("base_channels"),
        nb_harmonics=hift.integer("nb_harmonics"),
        sampling_rate=hift.integer("sampling_rate"),
        nsf_alpha=hift.number("nsf_alpha", 0.1),
        nsf_sigma=hift.number("nsf_sigma", 0.003),
        nsf_voiced_threshold=hift.number("nsf_voiced_threshold", 10),
        upsample_rates=hift.integers("upsample_rates"),
        upsample_kernel_sizes=hift.integers("upsample_kernel_sizes"),
        istft_n_fft=istft.integer("n_fft"),
        istft_hop=istft.integer("hop_len"),
        resblock_kernel_sizes=hift.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=hift.integer_rows("resblock_dilation_sizes"),
        source_resblock_kernel_sizes=hift.integers("source_resblock_kernel_sizes"),
        source_resblock_dilation_sizes=hift.integer_rows("source_resblock_dilation_sizes"),
        lrelu_slope=hift.number("lrelu_slope", 0.1),
        audio_limit=hift.number("audio_limit", 0.99),
        f0_channels=f0.integer("cond_channels"),
    )


def _mel(mel: Section) -> MelConfig:
    return MelConfig(
        n_fft=mel.integer("n_fft"),
        num_mels=mel.integer("num_mels"),
        sampling_rate=mel.integer("sampling_rate"),
        hop_size=mel.integer("hop_size"),
        win_size=mel.integer("win_size"),
        fmin=mel.number("fmin"),
        fmax=mel.number("fmax"),
        center=mel.flag("center", False),
    )
