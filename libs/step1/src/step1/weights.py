"""Step-1 weights on disk: safetensors files, one or many, read shard by shard.

Contract: every tensor that the config calls for exists once, whole, with the right shape and a
float dtype, or `WeightsError` names the first that does not in one line, before any of them is
loaded. Pickle formats are never opened.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from step1.config import Step1Config

_FLOAT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_INDEX = "model.safetensors.index.json"


class WeightsError(ValueError):
    """A checkpoint folder cannot be loaded. The message is one line and names file and tensor."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies.

    Attributes:
        file: The safetensors file.
        shape: Shape on disk.
        dtype: safetensors dtype name, e.g. `BF16`.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


def expected_shapes(config: Step1Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors (spec 2.3): 9 a layer and 3 more (2 when tied)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    kv = config.num_attention_groups * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (kv, hidden)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (kv, hidden)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def find_shards(folder: Path | str) -> list[Path]:
    """Safetensors files of a checkpoint: those its index names, else every one in the folder.

    Raises:
        WeightsError: No such file; a shard of the index is missing; only pickles are there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    index = folder / _INDEX
    if index.exists():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(weight_map.values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index}: not a safetensors index ({error!r})") from None
        for tensor, name in weight_map.items():
            if Path(name).name != name:
                raise WeightsError(f"{index}: {tensor} lies outside the folder ({name})")
            if not (folder / name).is_file():
                raise WeightsError(f"{folder / name}: missing, it holds {tensor}")
        return [folder / name for name in names]
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        return shards
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise WeightsError(
            f"{folder / pickles[0]}: pickle files are not loaded, convert them to safetensors"
        )
    raise WeightsError(f"{folder}: no safetensors file")


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Entries of one safetensors file, checked against the file's size.

    Raises:
        WeightsError: The header is damaged, or a tensor is cut off by the end of the file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise WeightsError(f"{file}: truncated inside its header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries: dict[str, TensorEntry] = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            if 8 + length + end > size:
                raise WeightsError(
                    f"{file}: tensor {name} is truncated,"
                    f" {max(0, size - 8 - length - start)} of {end - start} bytes are there"
                )
            entries[name] = TensorEntry(file, tuple(entry["shape"]), entry["dtype"])
    except WeightsError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsError(f"{file}: not a safetensors file ({error})") from None
    return entries


def check_weights(folder: Path | str, config: Step1Config) -> dict[str, TensorEntry]:
    """Check a checkpoint against its config, reading headers only.

    Returns:
        Where each expected tensor lies. Tensors that the model does not know are left out.

    Raises:
        WeightsError: A tensor is missing, doubled, truncated, or has a wrong shape or dtype.
    """
    found: dict[str, TensorEntry] = {}
    for shard in find_shards(folder):
        for name, entry in read_header(shard).items():
            if name in found:
                raise WeightsError(f"{shard}: tensor {name} is also in {found[name].file.name}")
            found[name] = entry
    expected = expected_shapes(config)
    for name, shape in expected.items():
        entry_or_none = found.get(name)
        if entry_or_none is None:
            raise WeightsError(f"{folder}: tensor {name} is missing")
        if entry_or_none.shape != shape:
            raise WeightsError(
                f"{entry_or_none.file}: tensor {name} has shape {list(entry_or_none.shape)},"
                f" config.json calls for {list(shape)}"
            )
        if entry_or_none.dtype not in _FLOAT_BYTES:
            raise WeightsError(
                f"{entry_or_none.file}: tensor {name} has dtype {entry_or_none.dtype},"
                f" not one of {', '.join(_FLOAT_BYTES)}"
            )
    return {name: found[name] for name in expected}


def iter_weights(
    folder: Path | str, config: Step1Config, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every expected tensor, cast to `dtype`, one shard after the other.

    Raises:
        WeightsError: As `check_weights`, before the first tensor.
    """
    entries = check_weights(folder, config)
    by_file: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        by_file.setdefault(entry.file, []).append(name)
    for file, names in by_file.items():
        with safe_open(file, framework="pt") as tensors:
            for name in names:
                yield name, tensors.get_tensor(name).to(dtype)
