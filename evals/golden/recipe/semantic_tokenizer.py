"""Semantic tokenizer: Whisper log-mel of 30 s pieces, an ONNX network, its codes (spec 1.4)."""

import math
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recipe.case import SEED, write_case
from recipe.linguistic_tokenizer import sound
from recipe.numerics import (
    Float,
    Weights,
    conv,
    gelu,
    layer_norm,
    linear,
    random_weights,
    slaney_filters,
    softmax,
)

WIDTH, HEADS, BLOCKS, CODES, POSITIONS, MELS = 16, 2, 2, 64, 1500, 128
PIECE = 480000
# Between the cosines of the nearest code and the next.
CLEAR = 3e-4

FILTERS = slaney_filters(16000, 400, MELS, 0.0, 8000.0)
HANN = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(400) / 400)


def log_mel(wave: Float) -> Float:
    """`[128, N // 160]`: centred frames, log10, at most 8 below the piece's loudest, scaled."""
    padded = np.pad(wave, 200, mode="reflect")
    frames = np.stack([padded[i * 160 : i * 160 + 400] for i in range(len(wave) // 160)])
    power = np.abs(np.fft.rfft(frames * HANN)) ** 2
    energies = np.log10(np.maximum(FILTERS @ power.T, 1e-10))
    scaled: Float = (np.maximum(energies, energies.max() - 8) + 4) / 4
    return scaled


def hidden_states(weights: Weights, features: Float) -> Float:
    """Rows the codebook is compared with, of unit length: `[ids, WIDTH]`."""
    x = gelu(conv(features, weights, "encoders.conv1", stride=2, padding=1))
    x = gelu(conv(x, weights, "encoders.conv2", stride=2, padding=1)).T
    x = x + weights["encoders.positional_embedding"][: len(x)]
    size = WIDTH // HEADS
    for block in range(BLOCKS):
        name = f"encoders.blocks.{block}"
        normed = layer_norm(x, weights, f"{name}.attn_ln", 1e-5)
        query, key, value = (
            linear(normed, weights, f"{name}.attn.{part}") for part in ("query", "key", "value")
        )
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            mine = slice(head * size, (head + 1) * size)
            scores = query[:, mine] @ key[:, mine].T / math.sqrt(size)
            mixed[:, mine] = softmax(scores) @ value[:, mine]
        x = x + linear(mixed, weights, f"{name}.attn.out")
        normed = layer_norm(x, weights, f"{name}.mlp_ln", 1e-5)
        wide = gelu(linear(normed, weights, f"{name}.mlp.0"))
        x = x + linear(wide, weights, f"{name}.mlp.2")
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def network_shapes() -> dict[str, tuple[int, ...]]:
    """Weights as PyTorch names and shapes them."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoders.conv1.weight": (WIDTH, MELS, 3),
        "encoders.conv1.bias": (WIDTH,),
        "encoders.conv2.weight": (WIDTH, WIDTH, 3),
        "encoders.conv2.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        name = f"encoders.blocks.{block}"
        for part in ("query", "key", "value", "out"):
            shapes[f"{name}.attn.{part}.weight"] = (WIDTH, WIDTH)
            if part != "key":
                shapes[f"{name}.attn.{part}.bias"] = (WIDTH,)
        shapes |= {
            f"{name}.mlp.0.weight": (4 * WIDTH, WIDTH),
            f"{name}.mlp.0.bias": (4 * WIDTH,),
            f"{name}.mlp.2.weight": (WIDTH, 4 * WIDTH),
            f"{name}.mlp.2.bias": (WIDTH,),
        }
        for part in ("attn_ln", "mlp_ln"):
            shapes |= {f"{name}.{part}.weight": (WIDTH,), f"{name}.{part}.bias": (WIDTH,)}
    return shapes


class _Graph:
    """ONNX nodes over the weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = attributes.pop("to", f"{kind.lower()}{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return str(name)

    def constant(self, values: NDArray[Any], name: str = "") -> str:
        name = name or f"constant{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(self._weights[name].astype(np.float32), name)

    def linear(self, x: str, name: str) -> str:
        matrix = self._weights[f"{name}.weight"].astype(np.float32).T
        x = self.node("MatMul", x, self.constant(matrix, f"{name}.weight"))
        has_bias = f"{name}.bias" in self._weights
        return self.node("Add", x, self.weight(f"{name}.bias")) if has_bias else x

    def conv(self, x: str, name: str) -> str:
        kernel, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("Conv", x, kernel, bias, kernel_shape=[3], strides=[2], pads=[1, 1])

    def gelu(self, x: str) -> str:
        scaled = self.node("Mul", x, self.constant(np.float32(math.sqrt(0.5)).reshape(1)))
        lifted = self.node("Add", self.node("Erf", scaled), self.constant(np.ones(1, np.float32)))
        half = self.node("Mul", x, self.constant(np.full(1, 0.5, np.float32)))
        return self.node("Mul", half, lifted)

    def norm(self, x: str, name: str) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def attention(self, x: str, name: str) -> str:
        split = self.constant(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))

        def heads(part: str, order: list[int]) -> str:
            rows = self.node("Reshape", self.linear(x, f"{name}.{part}"), split)
            return self.node("Transpose", rows, perm=order)

        scores = self.node("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
        scale = self.constant(np.full(1, 1 / math.sqrt(WIDTH // HEADS), np.float32))
        weights = self.node("Softmax", self.node("Mul", scores, scale), axis=-1)
        mixed = self.node("MatMul", weights, heads("value", [0, 2, 1, 3]))
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.node("Reshape", mixed, self.constant(np.array([0, 0, WIDTH], np.int64)))
        return self.linear(joined, f"{name}.out")


def onnx_model(weights: Weights, codebook: Float) -> Any:
    """The network with the published signature; it accepts its length input and ignores it."""
    graph = _Graph(weights)
    x = graph.gelu(graph.conv("feats", "encoders.conv1"))
    x = graph.node("Transpose", graph.gelu(graph.conv(x, "encoders.conv2")), perm=[0, 2, 1])
    zero, one, two = (graph.constant(np.array([value], np.int64)) for value in (0, 1, 2))
    length = graph.node("Slice", graph.node("Shape", x), one, two, zero)
    table = graph.weight("encoders.positional_embedding")
    x = graph.node("Add", x, graph.node("Slice", table, zero, length, zero))
    for block in range(BLOCKS):
        name = f"encoders.blocks.{block}"
        x = graph.node("Add", x, graph.attention(graph.norm(x, f"{name}.attn_ln"), f"{name}.attn"))
        wide = graph.gelu(graph.linear(graph.norm(x, f"{name}.mlp_ln"), f"{name}.mlp.0"))
        x = graph.node("Add", x, graph.linear(wide, f"{name}.mlp.2"))
    x = graph.node("LpNormalization", x, axis=2)
    x = graph.node("MatMul", x, graph.constant(codebook.astype(np.float32).T, "codebook"))
    graph.node("ArgMax", x, axis=2, keepdims=0, to="indices")
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, MELS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", TensorProto.INT64, [1, "U"])]
    made = helper.make_graph(graph.nodes, "tokenizer", inputs, outputs, graph.initialisers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _clear_codebook(hidden: Float, rng: np.random.Generator) -> Float:
    """Codes such that no row lies between two of them."""
    best, widest = np.zeros(0), 0.0
    for _ in range(200):
        codes = rng.standard_normal((CODES, WIDTH))
        codes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)
        codes = codes.astype(np.float64)
        first, second = np.sort(hidden @ codes.T, axis=1)[:, :-3:-1].T
        margin = float((first - second).min())
        if margin > widest:
            best, widest = codes, margin
    if widest < CLEAR:
        raise RuntimeError(f"no clear codebook: {widest}")
    return best


def semantic_tokenizer() -> None:
    """Short, odd and dropped lengths, and two pieces of one long signal."""
    rng = np.random.default_rng(SEED)
    weights = random_weights(network_shapes(), rng)
    # Louder than at initialisation, so that what is heard decides.
    weights["encoders.conv1.weight"] *= 4
    angle = np.arange(POSITIONS)[:, None] * np.exp(
        -np.arange(WIDTH // 2) * math.log(10000) / (WIDTH // 2 - 1)
    )
    table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    weights["encoders.positional_embedding"] = table.astype(np.float32).astype(np.float64)
    lengths = {"speech": 24321, "half_a_second": 8000, "odd": 4801, "shortest": 480, "dropped": 479}
    inputs = {
        f"{name}.audio16k": (sound(count, rng).astype(np.float32) / 32768)[None]
        for name, count in lengths.items()
    }
    audio = {name: inputs[f"{name}.audio16k"][0].astype(np.float64) for name in lengths}
    meta: dict[str, Any] = {name: {"samples": count} for name, count in lengths.items()}
    long = PIECE + 1201
    audio["tile_30s+1201"] = np.resize(audio["speech"], long)
    meta["tile_30s+1201"] = {
        "samples": long, "made_by": {"tile_of": "speech.audio16k", "cut_to": long},
    }  # fmt: skip

    features = {
        name: [
            log_mel(wave[at : at + PIECE])
            for at in range(0, len(wave), PIECE)
            if len(wave[at : at + PIECE]) >= 480
        ]
        for name, wave in audio.items()
    }
    hidden = {
        name: [hidden_states(weights, piece) for piece in pieces]
        for name, pieces in features.items()
    }
    codebook = _clear_codebook(np.concatenate(list(chain(*hidden.values()))), rng)
    outputs: dict[str, NDArray[Any]] = {}
    for name, pieces in hidden.items():
        rows = [(piece @ codebook.T).argmax(axis=1) for piece in pieces]
        outputs[f"{name}.ids"] = np.concatenate([np.zeros(0, np.int64), *rows])
        for index, mel in enumerate(features[name]):
            key, stored = f"{name}.logmel{index}", mel.astype(np.float32)
            if "made_by" in meta[name]:
                outputs[f"{key}.every101th"] = stored[:, ::101]
                outputs[f"{key}.last5"] = stored[:, -5:]
            else:
                outputs[key] = stored
    folder = write_case(
        "semantic_tokenizer",
        ["get_vq06_code", "log_mel_spectrogram"],
        {"logmel_atol": 2e-4},
        audio_meta=meta,
        dims={"state": WIDTH, "heads": HEADS, "layers": BLOCKS, "codebook": CODES},
    )
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
    (folder / "checkpoint").mkdir(exist_ok=True)
    onnx.save(onnx_model(weights, codebook), folder / "checkpoint" / "speech_tokenizer_v1.onnx")
