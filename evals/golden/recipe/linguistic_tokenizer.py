"""Linguistic tokenizer: online filter banks, chunked SANM encoder, nearest centroid (spec 1.3)."""

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipe.case import SEED, write_case, write_json
from recipe.numerics import Float, Weights, layer_norm, linear, random_weights, softmax

BLOCK = 3840
WIDTH, HEADS, INNER, LAYERS, CENTROIDS = 24, 3, 40, 3, 48
LEFT, CACHE = 5, 16
ENCODER = "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
# Between the nearest centroid and the next, in every frame: no rounding changes a code.
CLEAR = 5e-3

CONFIG = f"""\
model: ParaformerStreaming
encoder: SANMEncoderChunkOpt
encoder_conf:
  output_size: {WIDTH}
  attention_heads: {HEADS}
  linear_units: {INNER}
  num_blocks: {LAYERS}
  input_layer: pe_online
  normalize_before: true
  kernel_size: 11
  sanm_shfit: 0
  selfattention_layer_type: sanm
frontend: WavFrontendOnline
frontend_conf:
  fs: 16000
  window: hamming
  n_mels: 80
  frame_length: 25
  frame_shift: 10
  lfr_m: 7
  lfr_n: 6
  dither: 0.0
"""


def mel_filters() -> Float:
    """Kaldi's triangles, linear in mel from 20 Hz to 8 kHz: `[256, 80]`."""

    def mel(hertz: Float) -> Float:
        return 1127 * np.log(1 + hertz / 700)

    edge = np.linspace(*mel(np.array([20.0, 8000.0])), 82)
    place = mel(np.arange(256) * 16000 / 512)
    filters = np.zeros((256, 80))
    for index in range(80):
        left, centre, right = edge[index : index + 3]
        filters[:, index] = np.minimum(
            (place - left) / (centre - left), (right - place) / (right - centre)
        )
    return np.maximum(filters, 0)


MEL_FILTERS = mel_filters()
HAMMING = 0.54 - 0.46 * np.cos(2 * math.pi * np.arange(400) / 399)


def fbank(wave: Float) -> Float:
    """Log mel energies of every whole frame of 400 samples, 160 apart: `[F, 80]`."""
    rows = []
    for start in range(0, len(wave) - 399, 160):
        frame = wave[start : start + 400] * 32768
        frame = frame - frame.mean()
        frame = (frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])) * HAMMING
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        rows.append(np.log(np.maximum(power[:256] @ MEL_FILTERS, np.finfo(np.float32).eps)))
    return np.array(rows).reshape(-1, 80)


class Frontend:
    """One stream's features; `feed` takes whole blocks, or the rest with `final`."""

    def __init__(self, shift: Float, scale: Float) -> None:
        self._shift, self._scale = shift, scale
        self._samples = np.zeros(0)
        self._frames: Float | None = None

    def feed(self, wave: Float, final: bool) -> Float:
        """New stacked frames `[n, 560]`."""
        if final and not len(wave):
            return np.zeros((0, 560))
        signal = np.concatenate([self._samples, wave])
        new = fbank(signal)
        self._samples = signal[160 * len(new) :]
        if not len(new):
            return np.zeros((0, 560))
        frames = np.concatenate([new[:1]] * 3 if self._frames is None else [self._frames])
        frames = np.concatenate([frames, new])
        stacked: list[Float] = []
        wanted = math.ceil((len(frames) - 3) / 6) if len(frames) >= 7 else 0
        for index in range(wanted):
            window = frames[6 * index : 6 * index + 7]
            if len(window) < 7:
                if not final:
                    break
                window = np.concatenate([window, *[window[-1:]] * (7 - len(window))])
            stacked.append(window.ravel())
        self._frames = frames[min(6 * len(stacked), len(frames) - 1) :]
        return (np.array(stacked).reshape(-1, 560) + self._shift) * self._scale


class Encoder:
    """One stream through the encoder, block by block."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._left = np.zeros((LEFT, 560))
        self._position = 0
        self._cache: list[tuple[Float, Float] | None] = [None] * LAYERS

    def step(self, features: Float) -> Float:
        """All rows of a call, the left context included: `[5 + n, D]`."""
        place = self._position + 1 + np.arange(len(features))[:, None]
        angle = place * np.exp(-np.arange(280) * math.log(10000) / 279)
        rows = features * math.sqrt(WIDTH) + np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        self._position += len(features)
        x = np.concatenate([self._left, rows])
        self._left = x[-LEFT:]
        for layer in range(LAYERS):
            name = f"encoder.encoders0.{layer}" if layer == 0 else f"encoder.encoders.{layer - 1}"
            attended = self._attend(layer, f"{name}.self_attn", self._norm(x, f"{name}.norm1"))
            x = attended if layer == 0 else x + attended
            hidden = linear(
                self._norm(x, f"{name}.norm2"), self._weights, f"{name}.feed_forward.w_1"
            )
            x = x + linear(np.maximum(hidden, 0), self._weights, f"{name}.feed_forward.w_2")
        return self._norm(x, "encoder.after_norm")

    def _norm(self, x: Float, name: str) -> Float:
        return layer_norm(x, self._weights, name, 1e-12)

    def _attend(self, layer: int, name: str, x: Float) -> Float:
        query, key, value = np.split(linear(x, self._weights, f"{name}.linear_q_k_v"), 3, axis=1)
        cached = self._cache[layer]
        keys = key if cached is None else np.concatenate([cached[0], key])
        values = value if cached is None else np.concatenate([cached[1], value])
        self._cache[layer] = keys[:-LEFT][-CACHE:], values[:-LEFT][-CACHE:]
        size = WIDTH // HEADS
        mixed = np.zeros_like(query)
        for head in range(HEADS):
            mine = slice(head * size, (head + 1) * size)
            scores = query[:, mine] @ keys[:, mine].T / math.sqrt(size)
            mixed[:, mine] = softmax(scores) @ values[:, mine]
        kernel = self._weights[f"{name}.fsmn_block.weight"][:, 0]
        padded = np.pad(value, ((5, 5), (0, 0)))
        memory = value + sum(padded[k : k + len(value)] * kernel[:, k] for k in range(11))
        return linear(mixed, self._weights, f"{name}.linear_out") + memory


class Stream:
    """Samples to codes. Keeps what it computed on the way."""

    def __init__(self, weights: Weights, shift: Float, scale: Float, centroids: Float) -> None:
        self._frontend, self._encoder = Frontend(shift, scale), Encoder(weights)
        self._centroids = centroids
        self._pending = np.zeros(0)
        self.features: list[Float] = []
        self.calls: list[Float] = []

    def feed(self, wave: Float, final: bool) -> list[int]:
        """Codes that a packet completes."""
        self._pending = np.concatenate([self._pending, wave])
        codes: list[int] = []
        while len(self._pending) >= BLOCK:
            codes += self._block(self._pending[:BLOCK], False)
            self._pending = self._pending[BLOCK:]
        return codes + self._block(self._pending, True) if final else codes

    @property
    def frames(self) -> Float:
        """The encoder's frames that are kept: `[T, D]`."""
        kept = [call[LEFT:] for call in self.calls]
        return np.concatenate(kept) if kept else np.zeros((0, WIDTH))

    def _block(self, wave: Float, final: bool) -> list[int]:
        features = self._frontend.feed(wave, final)
        if not len(features):
            return []
        self.features.append(features)
        self.calls.append(self._encoder.step(features))
        new = self.calls[-1][LEFT:]
        distance = ((new[:, None] - self._centroids) ** 2).sum(axis=2)
        codes: list[int] = distance.argmin(axis=1).tolist()
        return codes


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of `model.pt` that encode."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        name = f"encoder.encoders0.{layer}" if layer == 0 else f"encoder.encoders.{layer - 1}"
        width = 560 if layer == 0 else WIDTH
        shapes |= {
            f"{name}.self_attn.linear_q_k_v.weight": (3 * WIDTH, width),
            f"{name}.self_attn.linear_q_k_v.bias": (3 * WIDTH,),
            f"{name}.self_attn.linear_out.weight": (WIDTH, WIDTH),
            f"{name}.self_attn.linear_out.bias": (WIDTH,),
            f"{name}.self_attn.fsmn_block.weight": (WIDTH, 1, 11),
            f"{name}.feed_forward.w_1.weight": (INNER, WIDTH),
            f"{name}.feed_forward.w_1.bias": (INNER,),
            f"{name}.feed_forward.w_2.weight": (WIDTH, INNER),
            f"{name}.feed_forward.w_2.bias": (WIDTH,),
            f"{name}.norm1.weight": (width,),
            f"{name}.norm1.bias": (width,),
            f"{name}.norm2.weight": (WIDTH,),
            f"{name}.norm2.bias": (WIDTH,),
        }
    return shapes | {"encoder.after_norm.weight": (WIDTH,), "encoder.after_norm.bias": (WIDTH,)}


def sound(samples: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Harmonics that rise and fall, over noise."""
    t = np.arange(samples) / 16000
    pitch = 120 + 60 * np.sin(2 * math.pi * 1.3 * t + rng.uniform(0, 6))
    phase = np.cumsum(2 * math.pi * pitch / 16000)
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    loud = 0.5 + 0.5 * np.sin(2 * math.pi * 3.1 * t)
    wave = 0.12 * voice * loud + 0.01 * rng.standard_normal(samples)
    return np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _clear_centroids(frames: Float, rng: np.random.Generator) -> Float:
    """Centroids near the frames such that no frame lies between two of them."""
    best, widest = np.zeros(0), 0.0
    for _ in range(300):
        chosen = frames[rng.choice(len(frames), CENTROIDS, replace=False)]
        centroids = chosen + 0.3 * rng.standard_normal(chosen.shape)
        centroids = centroids.astype(np.float32).astype(np.float64)
        distance = np.sqrt(((frames[:, None] - centroids) ** 2).sum(axis=2))
        first, second = np.partition(distance, 1, axis=1)[:, :2].T
        margin = float((second - first).min())
        if margin > widest:
            best, widest = centroids, margin
    if widest < CLEAR:
        raise RuntimeError(f"no clear centroids: {widest}")
    return best


def _cmvn_text(shift: Float, scale: Float) -> str:
    def row(values: Float) -> str:
        return " ".join(f"{value:.6f}" for value in values)

    return (
        "<Nnet> \n<Splice> 560 560 \n[ 0 ]\n<AddShift> 560 560 \n"
        f"<LearnRateCoef> 0 [ {row(shift)} ]\n<Rescale> 560 560 \n"
        f"<LearnRateCoef> 0 [ {row(scale)} ]\n</Nnet> \n"
    )


def _packets(samples: int, size: int) -> list[tuple[int, bool]]:
    sizes = [size] * (samples // size) + ([samples % size] if samples % size else [])
    return [(each, index == len(sizes) - 1) for index, each in enumerate(sizes)]


def linguistic_tokenizer() -> None:
    """Whole recordings, packets of every kind and a scan over lengths."""
    rng = np.random.default_rng(SEED)
    weights = random_weights(encoder_shapes(), rng)
    shift = np.round(rng.normal(-12, 1, 560), 6)
    scale = np.round(rng.uniform(0.2, 0.3, 560), 6)
    lengths = {
        "speech": 24011, "whole_blocks": 11520, "odd_tail": 12020, "tail_without_frames": 11619,
        "one_short_of_a_block": 3839, "one_block": 3840, "four_frames": 880, "three_frames": 879,
        "too_short": 399,
    }  # fmt: skip
    waves = {name: sound(count, rng) for name, count in lengths.items()}
    audio = {name: wave.astype(np.float64) / 32768 for name, wave in waves.items()}

    def stream(centroids: Float) -> Stream:
        return Stream(weights, shift, scale, centroids)

    frames = []
    for wave in audio.values():
        unquantised = stream(np.zeros((1, WIDTH)))
        unquantised.feed(wave, True)
        frames.append(unquantised.frames)
    centroids = _clear_centroids(np.concatenate(frames), rng)

    outputs: dict[str, NDArray[Any]] = {}
    for name, wave in audio.items():
        whole = stream(centroids)
        outputs[f"{name}.offline.codes"] = np.array(whole.feed(wave, True), np.int64)
        if name in ("speech", "odd_tail"):
            features = np.concatenate(whole.features).astype(np.float32)
            outputs[f"{name}.offline.feats"] = features
            outputs[f"{name}.offline.enc_kept"] = whole.frames.astype(np.float32)
        if name == "speech":
            for index in range(3):
                outputs[f"{name}.offline.call{index}.enc_full"] = whole.calls[index].astype(
                    np.float32
                )
    sessions = []
    plans: dict[str, list[tuple[int, bool]]] = {
        **{f"p{size}": _packets(24011, size) for size in (160, 1111, 3840, 5000, 24011)},
        "first_block_by_itself": [(3840, False), (0, False), (20171, True)],
        "empty_end": [(24011, False), (0, True)],
    }
    for plan, packets in plans.items():
        live, position, told = stream(centroids), 0, []
        for size, final in packets:
            codes = live.feed(audio["speech"][position : position + size], final)
            position += size
            told.append({"samples": size, "is_final": final, "codes": codes})
        sessions.append(
            {"audio": "speech", "plan": plan, "used_samples": position, "packets": told}
        )
    rows = []
    for samples in [*range(379, 1100, 37), *range(3700, 12000, 331)]:
        silent = stream(centroids)
        rows.append([samples, len(silent.feed(np.zeros(samples), True))])

    folder = write_case(
        "linguistic_tokenizer",
        ["WavFrontendOnline", "SANMEncoderChunkOpt"],
        {"feats_atol": 1e-3, "enc_atol_from_given_feats": 1e-4, "enc_atol_from_audio": 5e-3},
        dims={"d_model": WIDTH, "heads": HEADS, "ffn": INNER, "blocks_total": LAYERS},
    )
    inputs = {f"{name}.audio16k": wave.astype(np.float32)[None] for name, wave in audio.items()}
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
    (folder / "streams.json").write_text(json.dumps(sessions) + "\n")
    (folder / "length_scan.json").write_text(json.dumps({"rows": rows}) + "\n")
    checkpoint = folder / "checkpoint" / ENCODER
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "config.yaml").write_text(CONFIG)
    (checkpoint / "am.mvn").write_text(_cmvn_text(shift, scale))
    write_json(checkpoint / "tokens.json", ["<blank>", "<s>", "</s>", "<unk>"])
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    write_json(checkpoint / "configuration.json", {"file_path_metas": metas})
    # As FunASR's trainer leaves them: wrapped, and named by its parallel module.
    tensors = {f"module.{name}": torch.from_numpy(w).float() for name, w in weights.items()}
    torch.save({"state_dict": tensors}, checkpoint / "model.pt")
    np.save(folder / "checkpoint" / "linguistic_tokenizer.npy", centroids.astype(np.float32))
