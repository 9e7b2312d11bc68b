"""Flow matching: tokens and voice to mel (spec 4.3)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import SEED, write_case
from recipe.decoder_weights import (
    ATTENTION_HEADS,
    BLOCKS,
    CHANNELS,
    EMBEDDING,
    FOLDER,
    GUIDANCE,
    HEADS,
    LAYERS,
    MELS,
    MIDDLE,
    SPEAKER,
    TOKENS,
    WIDTH,
    decoder_weights,
    mel_frames,
    times,
)
from recipe.numerics import (
    Float,
    Weights,
    conv,
    conv_transposed,
    gelu,
    group_norm,
    layer_norm,
    linear,
    mish,
    silu,
    softmax,
)

STEPS = 10


def positions(length: int) -> Float:
    """Sinusoids of the distances length-1 down to -(length-1); sine in even columns."""
    distance = np.arange(length - 1, -length, -1)[:, None]
    angle = distance * np.exp(-np.arange(0, WIDTH, 2) * math.log(10000) / WIDTH)
    table = np.zeros((2 * length - 1, WIDTH))
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
    return table


def encode(weights: Weights, embedded: Float) -> dict[str, Float]:
    """All stages of the encoder, `[T, D]` each."""
    x = layer_norm(
        linear(embedded, weights, "encoder.embed.out.0"), weights, "encoder.embed.out.1", 1e-5
    ) * math.sqrt(WIDTH)
    table = positions(len(x))
    stages = {"encoder_embed_out": x, "encoder_pos_emb": table}
    size = WIDTH // HEADS
    for layer in range(LAYERS):
        name = f"encoder.encoders.{layer}"
        normed = layer_norm(x, weights, f"{name}.norm_mha", 1e-5)
        query, key, value = (
            linear(normed, weights, f"{name}.self_attn.linear_{part}") for part in "qkv"
        )
        place = linear(table, weights, f"{name}.self_attn.linear_pos")
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            mine = slice(head * size, (head + 1) * size)
            content = query[:, mine] + weights[f"{name}.self_attn.pos_bias_u"][head]
            where = query[:, mine] + weights[f"{name}.self_attn.pos_bias_v"][head]
            scores = content @ key[:, mine].T
            for i in range(len(x)):
                for j in range(len(x)):
                    # Row of the table that holds the distance i - j.
                    scores[i, j] += where[i] @ place[len(x) - 1 - (i - j), mine]
            mixed[:, mine] = softmax(scores / math.sqrt(size)) @ value[:, mine]
        x = x + linear(mixed, weights, f"{name}.self_attn.linear_out")
        hidden = linear(
            layer_norm(x, weights, f"{name}.norm_ff", 1e-5), weights, f"{name}.feed_forward.w_1"
        )
        x = x + linear(silu(hidden), weights, f"{name}.feed_forward.w_2")
        stages[f"encoder_block{layer}_out"] = x
    stages["encoder_out"] = layer_norm(x, weights, "encoder.after_norm", 1e-5)
    stages["encoder_proj_out"] = linear(stages["encoder_out"], weights, "encoder_proj")
    return stages


def stretched(rows: Float, length: int) -> Float:
    """Linear interpolation to `length` evenly spread rows."""
    out = np.zeros((length, rows.shape[1]))
    for i in range(length):
        place = max(0.0, (i + 0.5) * len(rows) / length - 0.5)
        left = int(place)
        right = min(left + 1, len(rows) - 1)
        out[i] = rows[left] * (1 - (place - left)) + rows[right] * (place - left)
    return out


def regulate(weights: Weights, rows: Float) -> Float:
    """mu: `[T, 80]`."""
    x = rows.T
    for block in range(4):
        x = conv(x, weights, f"length_regulator.model.{3 * block}", padding=1)
        x = mish(group_norm(x, weights, f"length_regulator.model.{3 * block + 1}", 1))
    return conv(x, weights, "length_regulator.model.12").T


class Velocity:
    """The U-Net of one sequence."""

    def __init__(self, weights: Weights) -> None:
        prefix = "decoder.estimator."
        self._weights = {
            name.removeprefix(prefix): values
            for name, values in weights.items()
            if name.startswith(prefix)
        }

    def __call__(self, x: Float, mu: Float, t: float, speaker: Float, cond: Float) -> Float:
        """Signals `[80, T]` to the velocity `[80, T]`."""
        weights = self._weights
        half = 2 * MELS
        angle = 1000 * t * np.exp(-np.arange(half) * math.log(10000) / (half - 1))
        time = np.concatenate([np.sin(angle), np.cos(angle)])
        time = linear(
            silu(linear(time, weights, "time_mlp.linear_1")), weights, "time_mlp.linear_2"
        )
        hidden = np.concatenate([x, mu, np.repeat(speaker[:, None], x.shape[1], axis=1), cond])
        skips = []
        last = len(CHANNELS) - 1
        for index in range(len(CHANNELS)):
            name = f"down_blocks.{index}"
            hidden = self._level(hidden, name, time)
            skips.append(hidden)
            if index < last:
                hidden = conv(hidden, weights, f"{name}.2.conv", stride=2, padding=1)
            else:
                hidden = conv(hidden, weights, f"{name}.2", padding=1)
        for index in range(MIDDLE):
            hidden = self._level(hidden, f"mid_blocks.{index}", time)
        for index in range(len(CHANNELS)):
            name, skip = f"up_blocks.{index}", skips.pop()
            hidden = np.concatenate([hidden[:, : skip.shape[1]], skip])
            hidden = self._level(hidden, name, time)
            if index < last:
                hidden = conv_transposed(hidden, weights, f"{name}.2.conv", stride=2, padding=1)
            else:
                hidden = conv(hidden, weights, f"{name}.2", padding=1)
        return conv(self._block(hidden, "final_block"), weights, "final_proj")

    def _block(self, x: Float, name: str) -> Float:
        x = conv(x, self._weights, f"{name}.block.0", padding=1)
        return mish(group_norm(x, self._weights, f"{name}.block.1", 8))

    def _level(self, x: Float, name: str, time: Float) -> Float:
        weights = self._weights
        hidden = self._block(x, f"{name}.0.block1")
        hidden = hidden + linear(mish(time), weights, f"{name}.0.mlp.1")[:, None]
        hidden = self._block(hidden, f"{name}.0.block2") + conv(x, weights, f"{name}.0.res_conv")
        rows = hidden.T
        for block in range(BLOCKS):
            part = f"{name}.1.{block}"
            normed = layer_norm(rows, weights, f"{part}.norm1", 1e-5)
            query, key, value = (
                linear(normed, weights, f"{part}.attn1.to_{kind}") for kind in "qkv"
            )
            mixed = np.zeros_like(query)
            for mine in np.split(np.arange(query.shape[1]), ATTENTION_HEADS):
                scores = query[:, mine] @ key[:, mine].T / math.sqrt(len(mine))
                mixed[:, mine] = softmax(scores) @ value[:, mine]
            rows = rows + linear(mixed, weights, f"{part}.attn1.to_out.0")
            normed = layer_norm(rows, weights, f"{part}.norm3", 1e-5)
            wide = gelu(linear(normed, weights, f"{part}.ff.net.0.proj"))
            rows = rows + linear(wide, weights, f"{part}.ff.net.2")
        return rows.T


def voice_inputs(
    name: str, tokens: int, prompt: int, prompt_frames: int, mel_key: str, token_key: str,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Random inputs of one variant."""
    frames = prompt_frames + mel_frames(tokens)
    return {
        f"{name}.{token_key}": rng.integers(0, TOKENS, (1, tokens)),
        f"{name}.prompt_token": rng.integers(0, TOKENS, (1, prompt)),
        f"{name}.{mel_key}": rng.normal(-4, 2, (1, prompt_frames, MELS)).astype(np.float32),
        f"{name}.embedding": rng.standard_normal((1, SPEAKER)).astype(np.float32),
        f"{name}.noise_z": rng.standard_normal((1, MELS, frames)).astype(np.float32),
    }


def solve(
    weights: Weights,
    tokens: Float,
    prompt: Float,
    prompt_mel: Float,
    embedding: Float,
    noise: Float,
) -> dict[str, Float]:
    """Every quantity on the way; `mel` is `[80, T]` without the prompt."""
    direction = embedding / np.sqrt((embedding**2).sum())
    speaker = linear(direction, weights, "spk_embed_affine_layer")
    ids = np.concatenate([prompt, tokens]).astype(np.int64)
    embedded = weights["input_embedding.weight"][ids]
    found = {"spks": speaker, "embedded_tokens": embedded, **encode(weights, embedded)}
    rows = found["encoder_proj_out"]
    parts = [stretched(rows[len(prompt) :], mel_frames(len(tokens)))]
    if len(prompt):
        parts.insert(0, stretched(rows[: len(prompt)], len(prompt_mel)))
    found["length_regulated_h"] = regulate(weights, np.concatenate(parts))
    mu = found["length_regulated_h"].T
    cond = np.zeros_like(mu)
    cond[:, : len(prompt_mel)] = prompt_mel.T
    velocity, grid = Velocity(weights), times(STEPS)
    nothing = np.zeros_like(mu)
    x = noise
    for step in range(STEPS):
        known = velocity(x, mu, grid[step], speaker, cond)
        free = velocity(x, nothing, grid[step], np.zeros(MELS), nothing)
        if step == 3:
            found |= {
                "estimator_call3.x": np.stack([x, x]),
                "estimator_call3.mu": np.stack([mu, nothing]),
                "estimator_call3.cond": np.stack([cond, nothing]),
                "estimator_call3.spks": np.stack([speaker, np.zeros(MELS)]),
                "estimator_call3.t": np.full(2, grid[step]),
                "estimator_call3.mask": np.ones((2, 1, x.shape[1])),
                "estimator_call3.out": np.stack([known, free]),
            }
        x = x + (grid[step + 1] - grid[step]) * ((1 + GUIDANCE) * known - GUIDANCE * free)
        if step == 0:
            found[f"x_after_step1_of_{STEPS}"] = x
    found["t_per_call"] = grid[:STEPS, None]
    found["mel"] = x[:, len(prompt_mel) :]
    return found


def solve_variant(
    weights: Weights, inputs: dict[str, NDArray[Any]], name: str, mel_key: str, token_key: str
) -> dict[str, Float]:
    """`solve` on stored inputs."""
    keys = (token_key, "prompt_token", mel_key, "embedding", "noise_z")
    return solve(weights, *(inputs[f"{name}.{key}"][0].astype(np.float64) for key in keys))


def flow() -> None:
    """A prompt, none, one token, a prompt that is longer than what follows; odd lengths."""
    rng = np.random.default_rng(SEED + 1)
    _, weights, _ = decoder_weights()
    variants = {
        "prompt": (33, 20, 45), "no_prompt": (18, 0, 0), "one_token": (1, 5, 11),
        "long_prompt": (7, 40, 90),
    }  # fmt: skip
    inputs: dict[str, NDArray[Any]] = {}
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, (tokens, prompt, frames) in variants.items():
        inputs |= voice_inputs(name, tokens, prompt, frames, "prompt_feat", "token", rng)
        found = solve_variant(weights, inputs, name, "prompt_feat", "token")
        if name != "one_token":
            found = {key: found[key] for key in ("mel", "spks", "length_regulated_h", "t_per_call")}
        for quantity, values in found.items():
            batched = quantity.startswith("estimator") or quantity == "t_per_call"
            outputs[f"{name}.{quantity}"] = (values if batched else values[None]).astype(np.float32)
    folder = write_case(
        "flow",
        ["MaskedDiffWithXvec.inference"],
        {"mel_atol": 2e-4, "intermediate_atol": 5e-5},
        checkpoint=f"../{FOLDER} (cosyvoice.yaml, flow.pt)",
        dims={"inp": EMBEDDING, "enc": WIDTH, "ch": list(CHANNELS)},
    )
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
