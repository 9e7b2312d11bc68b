"""A decoder folder in the published format: `cosyvoice.yaml`, `flow.pt`, `hift.pt`.

Three levels and two kinds of residual blocks, unlike the published dimensions, so that nothing is
right by being a constant. `hift.pt` holds the newer of the two weight-norm styles.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recipe.case import GOLDEN, SEED
from recipe.numerics import Float, Weights, random_weights

FOLDER = "decoder"
TOKENS, EMBEDDING, WIDTH, HEADS, INNER, LAYERS = 5120, 8, 12, 3, 20, 2
RATE, GUIDANCE = 41.667, 0.55
CHANNELS, HEAD, ATTENTION_HEADS, BLOCKS, MIDDLE = (16, 24, 16), 6, 2, 2, 1
BASE, HARMONICS, PITCH_CHANNELS = 16, 6, 10
KERNELS, DILATIONS = (3, 5), ((1, 3), (1, 2))
SOURCE_KERNELS = (5, 3)
MELS, SPEAKER, HOP, SAMPLE_RATE, FFT = 80, 192, 256, 22050, 16

_YAML = f"""\
sample_rate: {SAMPLE_RATE}
spk_embed_dim: {SPEAKER}

flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: {EMBEDDING}
    output_size: {MELS}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {TOKENS}
    input_frame_rate: {RATE}
    only_mask_loss: True
    encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        output_size: {WIDTH}
        attention_heads: {HEADS}
        linear_units: {INNER}
        num_blocks: {LAYERS}
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {EMBEDDING}
        use_cnn_module: False
        macaron_style: False
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: {MELS}
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: {MELS}
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {GUIDANCE}
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: {4 * MELS}
            out_channels: {MELS}
            channels: {list(CHANNELS)}
            dropout: 0.0
            attention_head_dim: {HEAD}
            n_blocks: {BLOCKS}
            num_mid_blocks: {MIDDLE}
            num_heads: {ATTENTION_HEADS}
            act_fn: 'gelu'

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {MELS}
    base_channels: {BASE}
    nb_harmonics: {HARMONICS}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 8]
    upsample_kernel_sizes: [16, 16]
    istft_params:
        n_fft: {FFT}
        hop_len: 4
    resblock_kernel_sizes: {list(KERNELS)}
    resblock_dilation_sizes: {[list(each) for each in DILATIONS]}
    source_resblock_kernel_sizes: {list(SOURCE_KERNELS)}
    source_resblock_dilation_sizes: {[list(each) for each in DILATIONS]}
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: {MELS}
        cond_channels: {PITCH_CHANNELS}

prompt_mel: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1024
    num_mels: {MELS}
    sampling_rate: !ref <sample_rate>
    hop_size: {HOP}
    win_size: 1024
    fmin: 0
    fmax: 8000
    center: False
"""

Shapes = dict[str, tuple[int, ...]]


def _pair(name: str, *shape: int) -> Shapes:
    """A layer's weight and its bias of the weight's first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _transposed(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[1:2]}


def _level(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = {
        **_pair(f"{name}.0.mlp.1", outputs, 4 * CHANNELS[0]),
        **_pair(f"{name}.0.block1.block.0", outputs, inputs, 3),
        **_pair(f"{name}.0.block1.block.1", outputs),
        **_pair(f"{name}.0.block2.block.0", outputs, outputs, 3),
        **_pair(f"{name}.0.block2.block.1", outputs),
        **_pair(f"{name}.0.res_conv", outputs, inputs, 1),
    }
    inner = HEAD * ATTENTION_HEADS
    for block in range(BLOCKS):
        part = f"{name}.1.{block}"
        shapes |= {f"{part}.attn1.to_{kind}.weight": (inner, outputs) for kind in "qkv"}
        shapes |= {
            **_pair(f"{part}.attn1.to_out.0", outputs, inner),
            **_pair(f"{part}.norm1", outputs),
            **_pair(f"{part}.norm3", outputs),
            **_pair(f"{part}.ff.net.0.proj", 4 * outputs, outputs),
            **_pair(f"{part}.ff.net.2", outputs, 4 * outputs),
        }
    return shapes


def _estimator(prefix: str) -> Shapes:
    shapes: Shapes = {
        **_pair("time_mlp.linear_1", 4 * CHANNELS[0], 4 * MELS),
        **_pair("time_mlp.linear_2", 4 * CHANNELS[0], 4 * CHANNELS[0]),
    }
    inputs = 4 * MELS
    for index, width in enumerate(CHANNELS):
        shapes |= _level(f"down_blocks.{index}", inputs, width)
        last = index == len(CHANNELS) - 1
        shapes |= _pair(f"down_blocks.{index}.2" + ("" if last else ".conv"), width, width, 3)
        inputs = width
    for index in range(MIDDLE):
        shapes |= _level(f"mid_blocks.{index}", inputs, inputs)
    upward = [*reversed(CHANNELS), CHANNELS[0]]
    for index, width in enumerate(upward[1:]):
        shapes |= _level(f"up_blocks.{index}", 2 * upward[index], width)
        if index == len(CHANNELS) - 1:
            shapes |= _pair(f"up_blocks.{index}.2", width, width, 3)
        else:
            shapes |= _transposed(f"up_blocks.{index}.2.conv", width, width, 4)
    shapes |= {
        **_pair("final_block.block.0", CHANNELS[0], CHANNELS[0], 3),
        **_pair("final_block.block.1", CHANNELS[0]),
        **_pair("final_proj", MELS, CHANNELS[0], 1),
    }
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def flow_shapes() -> Shapes:
    """Tensors of `flow.pt`."""
    shapes: Shapes = {
        "input_embedding.weight": (TOKENS, EMBEDDING),
        **_pair("spk_embed_affine_layer", MELS, SPEAKER),
        **_pair("encoder.embed.out.0", WIDTH, EMBEDDING),
        **_pair("encoder.embed.out.1", WIDTH),
        **_pair("encoder.after_norm", WIDTH),
        **_pair("encoder_proj", MELS, WIDTH),
    }
    for layer in range(LAYERS):
        name = f"encoder.encoders.{layer}"
        for part in ("linear_q", "linear_k", "linear_v", "linear_out"):
            shapes |= _pair(f"{name}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= {
            f"{name}.self_attn.linear_pos.weight": (WIDTH, WIDTH),
            f"{name}.self_attn.pos_bias_u": (HEADS, WIDTH // HEADS),
            f"{name}.self_attn.pos_bias_v": (HEADS, WIDTH // HEADS),
            **_pair(f"{name}.feed_forward.w_1", INNER, WIDTH),
            **_pair(f"{name}.feed_forward.w_2", WIDTH, INNER),
            **_pair(f"{name}.norm_ff", WIDTH),
            **_pair(f"{name}.norm_mha", WIDTH),
        }
    for block in range(4):
        shapes |= _pair(f"length_regulator.model.{3 * block}", MELS, MELS, 3)
        shapes |= _pair(f"length_regulator.model.{3 * block + 1}", MELS)
    shapes |= _pair("length_regulator.model.12", MELS, MELS, 1)
    return shapes | _estimator("decoder.estimator")


def _residual(name: str, width: int, kernel: int, dilations: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for index in range(len(dilations)):
        shapes |= _pair(f"{name}.convs1.{index}", width, width, kernel)
        shapes |= _pair(f"{name}.convs2.{index}", width, width, kernel)
        shapes[f"{name}.activations1.{index}.alpha"] = (width,)
        shapes[f"{name}.activations2.{index}.alpha"] = (width,)
    return shapes


def hift_shapes() -> Shapes:
    """Tensors of `hift.pt`, weight norm folded."""
    shapes: Shapes = {
        **_pair("m_source.l_linear", 1, HARMONICS + 1),
        **_pair("conv_pre", BASE, MELS, 7),
        **_pair("conv_post", FFT + 2, BASE // 4, 7),
        **_pair("source_downs.0", BASE // 2, FFT + 2, 16),
        **_pair("source_downs.1", BASE // 4, FFT + 2, 1),
        **_pair("f0_predictor.classifier", 1, PITCH_CHANNELS),
    }
    for layer in range(5):
        inputs = PITCH_CHANNELS if layer else MELS
        shapes |= _pair(f"f0_predictor.condnet.{2 * layer}", PITCH_CHANNELS, inputs, 3)
    for stage in range(2):
        wide, width = BASE >> stage, BASE >> (stage + 1)
        shapes |= _transposed(f"ups.{stage}", wide, width, 16)
        shapes |= _residual(
            f"source_resblocks.{stage}", width, SOURCE_KERNELS[stage], DILATIONS[stage]
        )
        for kind, (kernel, dilations) in enumerate(zip(KERNELS, DILATIONS, strict=True)):
            shapes |= _residual(
                f"resblocks.{stage * len(KERNELS) + kind}", width, kernel, dilations
            )
    return shapes


_NORMED = ("conv_pre", "conv_post", "ups", "resblocks", "source_resblocks", "f0_predictor.condnet")


def _weight_normed(weights: Weights, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Directions of any length, and gains; `weights` get what the two give together."""
    stored: dict[str, NDArray[np.float32]] = {}
    for name, tensor in weights.items():
        if not (name.startswith(_NORMED) and tensor.ndim == 3):
            stored[name] = tensor.astype(np.float32)
            continue
        layer = name.removesuffix(".weight")
        norm = np.sqrt((tensor**2).sum(axis=(1, 2), keepdims=True))
        gain = norm.astype(np.float32)
        stretch = rng.uniform(0.3, 3, (len(tensor), 1, 1))
        direction = (tensor * stretch).astype(np.float32)
        stored[f"{layer}.parametrizations.weight.original0"] = gain
        stored[f"{layer}.parametrizations.weight.original1"] = direction
        wide = direction.astype(np.float64)
        length = np.sqrt((wide**2).sum(axis=(1, 2), keepdims=True))
        weights[name] = gain.astype(np.float64) * wide / length
    return stored


def decoder_weights() -> tuple[Path, Weights, Weights]:
    """Writes the folder; returns it and both sets of weights as they act."""
    rng = np.random.default_rng(SEED)
    flow, hift = random_weights(flow_shapes(), rng), random_weights(hift_shapes(), rng)
    # A pitch that swings from some 220 Hz to below the voiced threshold.
    hift["f0_predictor.classifier.weight"] *= 90
    hift["f0_predictor.classifier.bias"] = np.array([100.0])
    # Loud enough to see, soft enough not to clip.
    hift["conv_post.weight"][: FFT // 2 + 1] *= 0.3
    hift["conv_post.bias"][: FFT // 2 + 1] -= 3
    for name in hift:
        if name.endswith("alpha"):
            hift[name] = np.abs(hift[name]).astype(np.float32).astype(np.float64) + 0.5
    hift = {name: values.astype(np.float32).astype(np.float64) for name, values in hift.items()}
    folder = GOLDEN / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / "cosyvoice.yaml").write_text(_YAML)
    stored = {name: torch.from_numpy(values).float() for name, values in flow.items()}
    torch.save(stored, folder / "flow.pt")
    normed = _weight_normed(hift, rng)
    torch.save(
        {name: torch.from_numpy(values) for name, values in normed.items()}, folder / "hift.pt"
    )
    return folder, flow, hift


def mel_frames(tokens: int) -> int:
    """Mel frames of that many new tokens."""
    return int(tokens / RATE * SAMPLE_RATE / HOP)


def times(steps: int) -> Float:
    """The cosine schedule, both ends included."""
    return 1 - np.cos(np.linspace(0, 1, steps + 1) * math.pi / 2)
