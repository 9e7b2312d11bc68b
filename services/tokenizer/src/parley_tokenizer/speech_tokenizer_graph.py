"""Writes the ONNX graph of the semantic speech tokenizer, with seeded weights (spec 1.4).

Contract: signature, structure and parameter roles of ``speech_tokenizer_v1.onnx``: two stride-2
convolutions, sinusoidal positions, Whisper blocks, nearest codebook entry; batch of one. The
weights are random. Not for running: `parley_tokenizer.semantic` loads the file like any other.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from parley_core.tokens import SEMANTIC_SIZE

from parley_tokenizer.log_mel import MEL_BINS

_POSITIONS = 1500
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True)
class GraphSize:
    """Dimensions of the network."""

    state: int
    heads: int
    blocks: int


def write_speech_tokenizer(path: Path, size: GraphSize, seed: int) -> None:
    """Writes the model file; the same seed and size give the same bytes."""
    graph = _Graph(np.random.default_rng(seed))
    state = size.state
    hidden = graph.gelu(graph.conv("feats", "encoders.conv1", MEL_BINS, state))
    hidden = graph.gelu(graph.conv(hidden, "encoders.conv2", state, state))
    hidden = graph.node("Transpose", hidden, perm=[0, 2, 1])
    frames = graph.node("Slice", graph.node("Shape", hidden), *graph.ints([1], [2], [0]))
    table = graph.weight("encoders.positional_embedding", _sinusoids(_POSITIONS, state))
    positions = graph.node("Slice", table, *graph.ints([0]), frames, *graph.ints([0]))
    hidden = graph.node("Add", hidden, positions)
    for index in range(size.blocks):
        hidden = graph.block(hidden, f"encoders.blocks.{index}", size)
    codebook = graph.rng.standard_normal((SEMANTIC_SIZE, state)).astype(np.float32)
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    embed = graph.weight("quantizer.rq.model.layers.0._codebook.embed", codebook.T)
    # Rows and columns have unit length, so the nearest entry is the one of the largest product.
    graph.node(
        "ArgMax",
        graph.node("MatMul", graph.node("LpNormalization", hidden, axis=2), embed),
        axis=2,
        keepdims=0,
        output="indices",
    )
    # The published graph masks by length; a batch of one without padding needs no mask, but the
    # input must be there.
    graph.node("Identity", "feats_length", output="length")
    onnx.save(graph.model(), path)


class _Graph:
    """Collects nodes and weights."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def weight(self, name: str, values: npt.NDArray[Any]) -> str:
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def ints(self, *values: list[int]) -> list[str]:
        first = len(self._weights)
        return [
            self.weight(f"ints_{first + at}", np.array(each, dtype=np.int64))
            for at, each in enumerate(values)
        ]

    def number(self, value: float) -> str:
        return self.weight(f"number_{len(self._weights)}", np.array(value, dtype=np.float32))

    def random(self, name: str, shape: tuple[int, ...], fan_in: int) -> str:
        values = self.rng.standard_normal(shape) / math.sqrt(fan_in)
        return self.weight(name, values.astype(np.float32))

    def conv(self, hidden: str, name: str, inputs: int, outputs: int) -> str:
        weight = self.random(f"{name}.weight", (outputs, inputs, 3), 3 * inputs)
        bias = self.random(f"{name}.bias", (outputs,), 3 * inputs)
        return self.node("Conv", hidden, weight, bias, kernel_shape=[3], strides=[2], pads=[1, 1])

    def gelu(self, hidden: str) -> str:
        error = self.node("Erf", self.node("Div", hidden, self.number(math.sqrt(2))))
        half = self.node("Mul", hidden, self.number(0.5))
        return self.node("Mul", half, self.node("Add", error, self.number(1.0)))

    def linear(self, hidden: str, name: str, inputs: int, outputs: int, bias: bool = True) -> str:
        product = self.node(
            "MatMul", hidden, self.random(f"{name}.weight", (inputs, outputs), inputs)
        )
        return (
            self.node("Add", product, self.random(f"{name}.bias", (outputs,), inputs))
            if bias
            else product
        )

    def norm(self, hidden: str, name: str, state: int) -> str:
        scale = self.weight(f"{name}.weight", np.ones(state, np.float32))
        shift = self.weight(f"{name}.bias", np.zeros(state, np.float32))
        return self.node("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=1e-5)

    def block(self, hidden: str, name: str, size: GraphSize) -> str:
        state, head = size.state, size.state // size.heads
        normed = self.norm(hidden, f"{name}.attn_ln", state)
        (split,) = self.ints([0, 0, size.heads, head])
        scale = self.number(head**-0.25)

        def heads(part: str, perm: list[int], bias: bool = True) -> str:
            rows = self.linear(normed, f"{name}.attn.{part}", state, state, bias)
            return self.node("Transpose", self.node("Reshape", rows, split), perm=perm)

        query = self.node("Mul", heads("query", [0, 2, 1, 3]), scale)
        key = self.node("Mul", heads("key", [0, 2, 3, 1], bias=False), scale)
        weights = self.node("Softmax", self.node("MatMul", query, key), axis=-1)
        mixed = self.node("MatMul", weights, heads("value", [0, 2, 1, 3]))
        (joined,) = self.ints([0, 0, state])
        mixed = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        hidden = self.node("Add", hidden, self.linear(mixed, f"{name}.attn.out", state, state))
        normed = self.norm(hidden, f"{name}.mlp_ln", state)
        wide = self.gelu(self.linear(normed, f"{name}.mlp.0", state, 4 * state))
        return self.node("Add", hidden, self.linear(wide, f"{name}.mlp.2", 4 * state, state))

    def model(self) -> Any:
        inputs = [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, MEL_BINS, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ]
        outputs = [helper.make_tensor_value_info("indices", TensorProto.INT64, [1, "U"])]
        outputs.append(helper.make_tensor_value_info("length", TensorProto.INT32, [1]))
        graph = helper.make_graph(
            self._nodes, "speech_tokenizer_v1", inputs, outputs, self._weights
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model)
        return model


def _sinusoids(length: int, width: int) -> npt.NDArray[np.float32]:
    half = width // 2
    scale = np.exp(-np.log(10000.0) / (half - 1) * np.arange(half))
    angles = np.arange(length)[:, None] * scale
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
