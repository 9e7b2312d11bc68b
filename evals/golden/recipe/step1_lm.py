"""Step-1: a checkpoint in the published format, its logits and greedy replies."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import SEED, write_case, write_json

Float = NDArray[np.float64]

STEP1 = {
    "architectures": ["Step1ForCausalLM"],
    "model_type": "step1",
    "bos_token_id": 1,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "hidden_size": 60,
    "intermediate_size": 88,
    "num_attention_heads": 10,
    "num_attention_groups": 5,
    "num_hidden_layers": 2,
    "vocab_size": 160,
    "max_seq_len": 512,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "use_cache": True,
}


def slopes(heads: int) -> list[float]:
    """One a head: powers of two for the largest power of two of heads, odd half-powers after."""
    base = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * k / base) for k in range(1, base + 1)]
    rest = [2 ** (-4 * k / base) for k in range(1, 2 * (heads - base), 2)]
    return first + rest


def bfloat16(values: Float) -> NDArray[np.uint16]:
    """Rounded to nearest even, as raw 16 bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> Float:
    """The numbers that these bfloat16 stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def step1_weights(rng: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
    """Random tensors under their published names, bfloat16."""
    hidden, inner, vocabulary, kv = 60, 88, 160, 30
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}self_attn.k_proj.weight": (kv, hidden),
            f"{prefix}self_attn.v_proj.weight": (kv, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}mlp.up_proj.weight": (inner, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        values = 1 + 0.1 * values if len(shape) == 1 else values * 1.6 / math.sqrt(shape[1])
        weights[name] = bfloat16(values)
    return weights


def write_safetensors(path: Path, tensors: dict[str, NDArray[np.uint16]]) -> None:
    """Header length, JSON header, raw tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def step1_logits(weights: dict[str, Float], ids: list[int]) -> Float:
    """Logits `[T, vocabulary]` of every position, one token and one head at a time."""

    def norm(x: Float, name: str) -> Float:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]

    heads, groups, size = 10, 5, 6
    hidden = weights["model.embed_tokens.weight"][ids]
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        x = norm(hidden, f"{prefix}input_layernorm")
        query, key, value = (
            x @ weights[f"{prefix}self_attn.{part}_proj.weight"].T for part in ("q", "k", "v")
        )
        mixed = np.zeros_like(query)
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            group = head // (heads // groups)
            shared = slice(group * size, (group + 1) * size)
            for i in range(len(ids)):
                distance = i - np.arange(i + 1)
                score = key[: i + 1, shared] @ query[i, mine] / math.sqrt(size)
                score -= slopes(heads)[head] * np.sqrt(distance)
                weight = np.exp(score - score.max())
                mixed[i, mine] = weight / weight.sum() @ value[: i + 1, shared]
        hidden = hidden + mixed @ weights[f"{prefix}self_attn.o_proj.weight"].T
        x = norm(hidden, f"{prefix}post_attention_layernorm")
        gate = x @ weights[f"{prefix}mlp.gate_proj.weight"].T
        up = x @ weights[f"{prefix}mlp.up_proj.weight"].T
        hidden = (
            hidden + gate / (1 + np.exp(-gate)) * up @ weights[f"{prefix}mlp.down_proj.weight"].T
        )
    return norm(hidden, "model.norm") @ weights["lm_head.weight"].T


def clear_reply(
    weights: dict[str, Float], length: int, rng: np.random.Generator
) -> tuple[list[int], list[int], list[Float]]:
    """A prompt whose greedy reply no rounding can change, the reply, the logits of each step."""
    while True:
        prompt = rng.integers(5, 160, length).tolist()
        reply: list[int] = []
        steps: list[Float] = []
        for _ in range(16):
            steps.append(step1_logits(weights, prompt + reply)[-1])
            reply.append(int(steps[-1].argmax()))
        best, second = np.sort(np.stack(steps), axis=1)[:, :-3:-1].T
        if float((best - second).min()) > 1e-2:
            return prompt, reply, steps


def step1_lm() -> None:
    """Prefill and sixteen greedy steps of three prompts; ten heads in five groups."""
    rng = np.random.default_rng(SEED)
    stored = step1_weights(rng)
    weights = {name: widened(bits) for name, bits in stored.items()}
    inputs, outputs = {}, {}
    for length in (1, 9, 47):
        prompt, reply, steps = clear_reply(weights, length, rng)
        inputs[f"p{length}.ids"] = np.array(prompt, dtype=np.int64)
        outputs[f"p{length}.prefill_logits"] = step1_logits(weights, prompt).astype(np.float32)
        outputs[f"p{length}.greedy_ids"] = np.array(reply, dtype=np.int64)
        outputs[f"p{length}.greedy_step_logits"] = np.stack(steps).astype(np.float32)
    outputs["alibi_slopes"] = np.array(slopes(10))
    for heads in (8, 48, 64):
        outputs[f"alibi_slopes_{heads}"] = np.array(slopes(heads))
    outputs["layer0_attn_bias"] = -np.array(slopes(10))[:, None] * np.sqrt(np.arange(20))
    folder = write_case("step1_lm", ["modeling_step1"], {"logits_atol": 5e-4}, dims=STEP1)
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
    (folder / "checkpoint").mkdir(exist_ok=True)
    write_json(folder / "checkpoint" / "config.json", STEP1)
    write_safetensors(folder / "checkpoint" / "model.safetensors", stored)
