"""Layers of neural networks in NumPy float64, written from their textbook definitions.

Signals are `[channels, time]`, rows of features `[time, width]`; weights are shaped as PyTorch
stores them.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float = NDArray[np.float64]
Weights = dict[str, Float]

_erf = np.frompyfunc(math.erf, 1, 1)


def linear(x: Float, weights: Weights, name: str) -> Float:
    """Rows times weight, plus the bias where there is one."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", np.zeros(1))


def layer_norm(x: Float, weights: Weights, name: str, eps: float) -> Float:
    """Every row to mean 0 and variance 1, then scaled and shifted."""
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def group_norm(x: Float, weights: Weights, name: str, groups: int) -> Float:
    """Groups of channels over all time to mean 0 and variance 1."""
    grouped = x.reshape(groups, -1)
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return (
        normal.reshape(x.shape) * weights[f"{name}.weight"][:, None]
        + weights[f"{name}.bias"][:, None]
    )


def conv(
    x: Float, weights: Weights, name: str, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Float:
    """Correlation with zero padding."""
    kernel = weights[f"{name}.weight"]
    reach = (kernel.shape[2] - 1) * dilation + 1
    padded = np.pad(x, ((0, 0), (padding, padding)))
    windows = sliding_window_view(padded, reach, axis=1)[:, ::stride, ::dilation]
    bias = weights.get(f"{name}.bias", np.zeros(1))
    return np.einsum("ctk,ock->ot", windows, kernel) + bias[:, None]


def conv_transposed(x: Float, weights: Weights, name: str, *, stride: int, padding: int) -> Float:
    """Every input sample adds its scaled kernel to the output; `padding` is cut off both ends."""
    kernel = weights[f"{name}.weight"]
    out = np.zeros((kernel.shape[1], (x.shape[1] - 1) * stride + kernel.shape[2]))
    for t in range(x.shape[1]):
        out[:, t * stride : t * stride + kernel.shape[2]] += np.einsum("c,cok->ok", x[:, t], kernel)
    return out[:, padding : out.shape[1] - padding] + weights[f"{name}.bias"][:, None]


def softmax(scores: Float) -> Float:
    """Over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Float = weights / weights.sum(axis=-1, keepdims=True)
    return total


def gelu(x: Float) -> Float:
    """The exact one, with the error function."""
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)).astype(np.float64))


def silu(x: Float) -> Float:
    """X times its logistic function."""
    return x / (1 + np.exp(-x))


def mish(x: Float) -> Float:
    """X times tanh of softplus."""
    return x * np.tanh(np.logaddexp(0, x))


def slaney_filters(rate: int, n_fft: int, bins: int, low: float, high: float) -> Float:
    """Triangles of equal area `[bins, n_fft / 2 + 1]`, logarithmic in mel above 1 kHz."""

    def mel(hertz: float) -> float:
        step = 200 / 3
        return hertz / step if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)

    def hertz(value: float) -> float:
        return value * 200 / 3 if value < 15 else 1000 * math.exp((value - 15) * math.log(6.4) / 27)

    edges = [hertz(value) for value in np.linspace(mel(low), mel(high), bins + 2)]
    frequency = np.arange(n_fft // 2 + 1) * rate / n_fft
    rows = []
    for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
        rising = (frequency - left) / (centre - left)
        falling = (right - frequency) / (right - centre)
        rows.append(np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left))
    return np.array(rows)


def random_weights(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Weights:
    """Random float32 values, widened: matrices keep the scale of their input, norms are near 1."""
    weights: Weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        if len(shape) > 1:
            values /= math.sqrt(math.prod(shape[1:]))
        else:
            values = 0.1 * values + (1 if name.endswith(".weight") else 0)
        weights[name] = values.astype(np.float32).astype(np.float64)
    return weights
