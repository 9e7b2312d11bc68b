"""Front end and encoder against slow, direct implementations of the specification.

These stand in for the reference's numbers where ``../shared/golden`` is not at hand.
"""

import math
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from paraformer.checkpoint import open_checkpoint
from paraformer.encoder import SanmEncoder
from paraformer.frontend import Frontend
from paraformer.seeded import write_seeded

pytestmark = pytest.mark.unit

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paraformer")
    write_seeded(path, seed=7)
    return path


def test_filter_banks_equal_kaldi(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.frame_opts.samp_freq = 16000
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(16000, (wave * 32768).tolist())
    kaldi.input_finished()
    wanted = np.stack([kaldi.get_frame(at) for at in range(kaldi.num_frames_ready)])
    found = Frontend(checkpoint.config.frontend, checkpoint.cmvn).fbank(
        torch.from_numpy(wave)[None]
    )
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-3, rtol=0)


def norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer(x: np.ndarray, w: Weights, name: str, cache: list[np.ndarray], heads: int) -> np.ndarray:
    """One layer over one block; ``cache`` holds past keys and values and is advanced."""
    query, key, value = np.split(
        linear(norm(x, w, f"{name}.norm1"), w, f"{name}.self_attn.linear_q_k_v"), 3, axis=1
    )
    kernel = w[f"{name}.self_attn.fsmn_block.weight"][:, 0]
    padded = np.pad(value, ((5, 5), (0, 0)))
    memory = value + np.stack(
        [(padded[at : at + 11] * kernel.T).sum(0) for at in range(len(value))]
    )
    keys, values = (
        np.concatenate([past, now]) for past, now in zip(cache, (key, value), strict=True)
    )
    size = value.shape[1] // heads
    mixed = np.zeros_like(value)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ keys[:, part].T / math.sqrt(size)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        mixed[:, part] = weights / weights.sum(1, keepdims=True) @ values[:, part]
    cache[:] = [
        np.concatenate([past, now[:-5]])[-16:]
        for past, now in zip(cache, (key, value), strict=True)
    ]
    attended = linear(mixed, w, f"{name}.self_attn.linear_out") + memory
    x = x + attended if x.shape == attended.shape else attended
    hidden = np.maximum(linear(norm(x, w, f"{name}.norm2"), w, f"{name}.feed_forward.w_1"), 0)
    return x + linear(hidden, w, f"{name}.feed_forward.w_2")


def encode(features: np.ndarray, w: Weights, heads: int, width: int) -> np.ndarray:
    """The whole encoder, block by block, in float64."""
    names = ["encoders0.0", *sorted({n[:10] for n in w if n.startswith("encoders.")})]
    caches = [[np.zeros((0, width))] * 2 for _ in names]
    left, position, output = np.zeros((5, features.shape[1])), 0, []
    half = features.shape[1] // 2
    rates = np.exp(-np.arange(half) * math.log(10000) / (half - 1))
    for begin in range(0, len(features), 4):
        block = features[begin : begin + 4] * math.sqrt(width)
        angles = np.arange(position + 1, position + 1 + len(block))[:, None] * rates
        block = block + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        position += len(block)
        hidden = np.concatenate([left, block])
        left = hidden[-5:]
        for name, cache in zip(names, caches, strict=True):
            hidden = layer(hidden, w, name, cache, heads)
        output.append(norm(hidden, w, "after_norm")[-len(block) :])
    return np.concatenate(output)


@pytest.mark.parametrize("frames", [1, 4, 7, 30])
def test_the_encoder_computes_what_the_specification_says(folder: Path, frames: int) -> None:
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config.encoder
    encoder = SanmEncoder(config).eval()
    checkpoint.load(encoder, "encoder.")
    weights = {name: tensor.double().numpy() for name, tensor in encoder.state_dict().items()}
    features = np.random.default_rng(frames).standard_normal((frames, config.input_size))
    found = encoder.encode(torch.from_numpy(features.astype(np.float32))).numpy()
    wanted = encode(features, weights, config.attention_heads, config.output_size)
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=0)
