"""Small seeded decoder folders in the real on-disk formats.

Untrained weights that make speech-shaped sound: a voice between about 100 and 200 Hz whose pitch,
loudness and colour follow the tokens and, a little, the speaker. Nothing is learned: linear paths
are laid through the real architecture, everything else stays small and random, and two gains are
measured and set. Not for: sense; what the sound says is nothing.

The paths. The regulator's last layer yields eight token-driven signals in a subspace of the mel. In
the U-Net, the 1x1 shortcuts carry `signals - x` from input to output past the random blocks; the
last GroupNorm sees each signal with both signs beside two large constants, so it scales by almost a
constant, and Mish(z) - Mish(-z) is almost linear: the flow relaxes to the signals from any noise.
In HiFT, one signal drives f0, another the log magnitude of the lowest bins of the inverse STFT; the
source's own spectrum drives their phase, which gives a band-passed copy of the source.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from parley_vocoder.config import load_config
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder, Voice
from parley_vocoder.engine.flow.length_regulator import even_positions
from parley_vocoder.engine.flow.model import Flow
from parley_vocoder.engine.flow.solver import euler_step
from parley_vocoder.engine.hift.model import Hift
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import decode_whole

_YAML = """\
# Seeded weights for tests and demonstrations: real format, small sizes, nothing learned.
__set_seed1: !apply:random.seed [1986]
sample_rate: 22050
text_encoder_input_size: 512
spk_embed_dim: 192

flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: 48
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: 5120
    input_frame_rate: 41.667
    only_mask_loss: True
    encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        output_size: 48
        attention_heads: 4
        linear_units: 96
        num_blocks: 2
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: 48
        use_cnn_module: False
        macaron_style: False
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: 80
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: 320
            out_channels: 80
            channels: [32, 32]
            dropout: 0.0
            attention_head_dim: 16
            n_blocks: 1
            num_mid_blocks: 1
            num_heads: 2
            act_fn: 'gelu'

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: 80
    base_channels: 32
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 8]
    upsample_kernel_sizes: [16, 16]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: 16

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

Weights = dict[str, Tensor]

_SIGNALS = 8
_PITCH, _LOUDNESS, _COLOURS = 0, 1, (2, 3, 4)
# How fast the flow relaxes to its signals; exp(-3) of the noise would be left in continuous time.
_RELAXATION = 3.0
# Slope of Mish(z) - Mish(-z) around 0.
_ODD_MISH_SLOPE = 1.2
# Random coupling of everything else into the paths: enough to depend on context, not to drown them.
_STRAY = 0.02
_CALIBRATION_TOKENS = 250
_MEAN_PITCH = 150.0
_LEVEL = 0.08
# Log magnitude of the bins that carry nothing.
_SILENT = -14.0


def write_seeded(folder: Path, seed: int = 0) -> None:
    """Write both decoder folders of a TTS-3B checkpoint below `folder`.

    `folder/CosyVoice-300M-25Hz` and `folder/CosyVoice-300M-25Hz-Music` get `cosyvoice.yaml`,
    `flow.pt` and `hift.pt`; the front end's ONNX files are the tts service's business. The same
    seed gives the same weights. The music folder's pitch moves further.
    """
    for index, flow_model in enumerate(FlowModel):
        target = folder / flow_model.value
        target.mkdir(parents=True, exist_ok=True)
        (target / "cosyvoice.yaml").write_text(_YAML, encoding="utf-8")
        pitch_spread = 18.0 if flow_model is FlowModel.COMMON else 26.0
        _write_weights(target, seed * len(FlowModel) + index, pitch_spread)


@torch.no_grad()
def _write_weights(folder: Path, seed: int, pitch_spread: float) -> None:
    config = load_config(folder)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(80, _SIGNALS, generator=generator))
    flow, hift = Flow(config.flow), Hift(config.hift)
    net, generator_weights = _weights(flow.estimator), _weights(hift)
    _randomise(_weights(flow), generator)
    _randomise(generator_weights, generator)
    decoder = Decoder(config, flow, hift)
    tokens = _spoken_tokens(_CALIBRATION_TOKENS, generator)
    _lay_signals(flow, basis, tokens)
    _lay_velocity(net, basis, config.flow.inference_cfg_rate)
    _lay_pitch(hift, basis, _mel(decoder, tokens, seed), pitch_spread)
    _lay_sound(hift, generator_weights, basis)
    _set_level(decoder, generator_weights["conv_post.bias"], tokens, seed)
    torch.save(flow.state_dict(), folder / "flow.pt")
    torch.save(_with_weight_norm(hift), folder / "hift.pt")


def _weights(module: nn.Module) -> Weights:
    """The module's parameters by name, to be written in place."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _randomise(weights: Weights, generator: torch.Generator) -> None:
    for name, parameter in weights.items():
        if name.endswith("alpha") or (parameter.dim() == 1 and name.endswith("weight")):
            parameter.fill_(1.0)
        elif parameter.dim() == 1:
            parameter.zero_()
        else:
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def _spoken_tokens(count: int, generator: torch.Generator) -> list[int]:
    """Random ids in the grammar: two linguistic, three semantic."""
    linguistic = torch.randint(0, 1024, (count,), generator=generator)
    semantic = torch.randint(1024, 5120, (count,), generator=generator)
    return [int(linguistic[i] if i % 5 < 2 else semantic[i]) for i in range(count)]


def _plain_voice(decoder: Decoder) -> Voice:
    return Voice(torch.zeros(0, dtype=torch.int64), torch.zeros(80, 0), torch.zeros(80))


def _lay_signals(flow: Flow, basis: Tensor, tokens: list[int]) -> None:
    """Make the regulator's last layer give signals of mean 0 and deviation 1 for such tokens."""
    hidden = flow.encoder_proj(flow.encoder(flow.input_embedding(torch.tensor(tokens))[None]))
    *stack, last = flow.length_regulator.model
    places = even_positions(len(tokens), 2 * len(tokens)).long()
    features = hidden[:, places].transpose(1, 2)
    for layer in stack:
        features = layer(features)
    last_layer = _weights(last)
    directions = last_layer["weight"][:_SIGNALS, :, 0]
    signals = directions @ features[0]
    scale, mean = 1 / signals.std(dim=1), signals.mean(dim=1)
    last_layer["weight"][:, :, 0] = basis @ (directions * scale[:, None])
    last_layer["bias"].copy_(basis @ (-mean * scale))


def _lay_velocity(net: Weights, basis: Tensor, guidance: float) -> None:
    """Carry `signals - x` through the shortcuts of the U-Net to its output."""
    for name, weight in net.items():
        if name.endswith("block2.block.1.weight"):
            weight[:_SIGNALS] = _STRAY
        elif name.endswith(("to_out.0.weight", "ff.net.2.weight")):
            weight[:_SIGNALS] *= _STRAY
    # Guidance pulls towards (1 + r) signals: undo it here.
    rows = basis.T / (1 + guidance)
    entry = net["down_blocks.0.0.res_conv.weight"]
    entry[:_SIGNALS, :, 0] = torch.cat([-basis.T, rows, 0.2 * rows, torch.zeros_like(rows)], dim=1)
    # The speaker moves pitch and colour, not loudness.
    entry[_LOUDNESS, 160:] = 0.0
    width = entry.shape[0]
    signals = torch.arange(_SIGNALS)
    top = len({name.split(".")[1] for name in net if name.startswith("up_blocks.")}) - 1
    shortcut, smooth = net[f"up_blocks.{top}.0.res_conv.weight"], net[f"up_blocks.{top}.2.weight"]
    shortcut[:_SIGNALS] = 0.0
    shortcut[signals, width + signals, 0] = 1.0
    smooth[:_SIGNALS] = 0.0
    smooth[signals, signals, 1] = 1.0

    groups, constant = 8, 6.0
    per_group = width // groups
    per = _SIGNALS // groups
    # The deviation GroupNorm will find in a group of signals of deviation near 1.
    deviation = (2 * (constant**2 + per) / per_group) ** 0.5
    gain = _RELAXATION * deviation / _ODD_MISH_SLOPE
    mix, bias = net["final_block.block.0.weight"].zero_(), net["final_block.block.0.bias"]
    output = net["final_proj.weight"].zero_()
    positive = signals // per * per_group + signals % per * 2
    mix[positive, signals, 1] = 1.0
    mix[positive + 1, signals, 1] = -1.0
    output[:, positive, 0] = gain * basis
    output[:, positive + 1, 0] = -gain * basis
    bias.view(groups, per_group)[:, -2] = constant
    bias.view(groups, per_group)[:, -1] = -constant


def _mel(decoder: Decoder, tokens: list[int], seed: int) -> Tensor:
    """Mel `[80, T]` of the tokens in a plain voice."""
    voice = _plain_voice(decoder)
    frames = decoder.clock.frames(len(tokens))
    trajectory = decoder.flow.start(
        voice.prompt_tokens,
        torch.tensor(tokens),
        voice.prompt_mel,
        voice.speaker,
        torch.from_numpy(SeededNoise(seed).flow(0, frames)),
        even_positions(len(tokens), frames),
    )
    for _ in decoder.grid.times:
        euler_step(
            decoder.flow.estimator,
            [trajectory],
            decoder.grid,
            decoder.config.flow.inference_cfg_rate,
        )
    return trajectory.x.clone()


def _lay_pitch(hift: Hift, basis: Tensor, mel: Tensor, spread: float) -> None:
    """Let one signal, smoothed, set f0 around the mean pitch with the given deviation in Hz."""
    weights = _weights(hift.f0_predictor)
    offset = 6.0
    for name, weight in weights.items():
        if name.endswith(".weight") and weight.dim() == 3:
            weight *= _STRAY
            weight[0] = 0.0
            weight[0, 0] = 1 / 3
    # Above zero ELU is the identity.
    weights["condnet.0.weight"][0] = basis[:, _PITCH, None] / 3
    weights["condnet.0.bias"][0] = offset
    head, bias = weights["classifier.weight"].zero_(), weights["classifier.bias"]
    head[0, 0] = 1.0
    smoothed = hift.f0_predictor(mel[None])[0]
    gain = spread / smoothed.std()
    head[0, 0] = gain
    bias[0] = _MEAN_PITCH - gain * smoothed.mean()


def _lay_sound(hift: Hift, weights: Weights, basis: Tensor) -> None:
    """Loudness and colour to the magnitudes, the source to the phases, of the lowest bins."""
    offset = 4.0
    carried = 1 + len(_COLOURS)
    stages = len(hift.ups)
    weights["m_source.l_linear.weight"][0] = 1.6 / torch.arange(1, 10).sqrt()
    for name, weight in weights.items():
        layer = name.split(".")[0]
        if ".convs2." in name or layer in {"source_downs", "conv_pre", "ups", "conv_post"}:
            weight *= _STRAY
    # Channels 1.. carry loudness and colours, above zero so that leaky ReLUs let them through.
    for channel, (signal, size) in enumerate(
        [(_LOUDNESS, 0.35), *((colour, 0.25) for colour in _COLOURS)], start=1
    ):
        weights["conv_pre.weight"][channel] = size * basis[:, signal, None] / 7
        weights["conv_pre.bias"][channel] = offset
    for stage in range(stages):
        up = weights[f"ups.{stage}.weight"]
        up[:, : carried + 1] = 0.0
        for channel in range(1, carried + 1):
            up[channel, channel] = torch.hann_window(16)
    # Channel 0 of the last stage carries the source: the real part of its spectrum's bin 0.
    source = weights[f"source_downs.{stages - 1}.weight"]
    source[: carried + 1] = 0.0
    source[0, 0, 0] = 1.0
    weights[f"source_downs.{stages - 1}.bias"][0] = offset
    bins = hift.config.istft_n_fft // 2 + 1
    post, post_bias = weights["conv_post.weight"], weights["conv_post.bias"]
    post_bias[:bins] = _SILENT
    for low, (colour, level) in enumerate([(1, 0.0), (1, 0.0), (2, -1.0), (3, -1.6)]):
        post[low, 1, 3] = 1.0
        post[low, 1 + colour, 3] = 1.0
        post_bias[low] = level - 2 * offset
        if low > 0:
            post[bins + low, 0, 3] = 0.5
            post_bias[bins + low] = -0.5 * offset


def _set_level(decoder: Decoder, bias: Tensor, tokens: list[int], seed: int) -> None:
    """Cancel the constant that bin 1 leaves in the sound by bin 0, then set the loudness."""
    bins = decoder.config.hift.istft_n_fft // 2 + 1

    def sound() -> Tensor:
        voice = _plain_voice(decoder)
        return torch.from_numpy(decode_whole(decoder, voice, tokens, SeededNoise(seed)).samples)

    with_bin_0 = sound().mean()
    full = bias[0].clone()
    bias[0] = _SILENT
    without = sound().mean()
    bias[0] = full + torch.log(without / (without - with_bin_0))
    bias[:bins] += torch.log(_LEVEL / sound().square().mean().sqrt())


def _with_weight_norm(hift: Hift) -> dict[str, Tensor]:
    """The state dict in the checkpoint's legacy weight-norm style."""
    normed = (
        "conv_pre.",
        "conv_post.",
        "ups.",
        "resblocks.",
        "source_resblocks.",
        "f0_predictor.c",
    )
    stored: dict[str, Tensor] = {}
    for name, tensor in hift.state_dict().items():
        if name.startswith(normed) and name.endswith(".weight") and tensor.dim() == 3:
            layer = name.removesuffix(".weight")
            # A silent row keeps a direction: a norm of zero cannot be divided by.
            direction = torch.where(tensor.abs().amax(dim=(1, 2), keepdim=True) > 0, tensor, 1e-8)
            stored[f"{layer}.weight_g"] = direction.norm(dim=(1, 2), keepdim=True)
            stored[f"{layer}.weight_v"] = direction.clone()
        else:
            stored[name] = tensor
    return stored
