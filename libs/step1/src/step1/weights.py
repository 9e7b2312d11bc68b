"""Step-1 weights on disk: safetensors files, one or many, read shard by shard.

Contract: every tensor that the config calls for exists once, whole, with the right shape and a
float dtype, and no layer is there that the config does not call for, or `WeightsError` names the
first tensor that is wrong in one line, before any of them is loaded. Values are looked at as they
are loaded: they must be finite. Pickle formats are never opened.
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from step1.config import Step1Config

_FLOATS = ("BF16", "F16", "F32")
_DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Of the dtypes that safetensors packs into whole bytes."""
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_INDEX = "model.safetensors.index.json"
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
    struct.error,
)
"""What reading a damaged header or index raises."""


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
            weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"].items())
        except _UNREADABLE as error:
            raise WeightsError(f"{index}: not a safetensors index ({error!r})") from None
        for tensor, name in weight_map.items():
            if not isinstance(name, str):
                raise WeightsError(f"{index}: {tensor} lies in no file ({name!r})")
            if Path(name).name != name:
                raise WeightsError(f"{index}: {tensor} lies outside the folder ({name})")
            if not (folder / name).is_file():
                raise WeightsError(f"{folder / name}: missing, it holds {tensor}")
        return [folder / name for name in sorted(set(weight_map.values()))]
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
    """Entries of one safetensors file, checked against the file's size and each other.

    Raises:
        WeightsError: The header is damaged, a tensor is cut off by the end of the file, has another
            size than its shape and dtype tell, or does not begin where the one before it ends.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise WeightsError(f"{file}: truncated inside its header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        _check_layout(file, header, size - 8 - length)
        return {
            name: TensorEntry(file, tuple(entry["shape"]), entry["dtype"])
            for name, entry in header.items()
        }
    except WeightsError:
        raise
    except _UNREADABLE as error:
        raise WeightsError(f"{file}: not a safetensors file ({error})") from None


def _check_layout(file: Path, header: dict[str, Any], size: int) -> None:
    """Refuses tensors that do not fill the `size` bytes behind the header one after the other."""
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        width = _DTYPE_BYTES.get(entry["dtype"])
        if width is not None and end - start != math.prod(entry["shape"]) * width:
            raise WeightsError(
                f"{file}: tensor {name} has {end - start} bytes,"
                f" {entry['dtype']} {entry['shape']} takes {math.prod(entry['shape']) * width}"
            )
        if start != at:
            raise WeightsError(
                f"{file}: tensor {name} begins at byte {start}, the one before it ends at {at}"
            )
        if end > size:
            raise WeightsError(
                f"{file}: tensor {name} is truncated,"
                f" {max(0, size - start)} of {end - start} bytes are there"
            )
        at = end
    if at != size:
        raise WeightsError(f"{file}: {size - at} bytes follow its last tensor")


def check_weights(folder: Path | str, config: Step1Config) -> dict[str, TensorEntry]:
    """Check a checkpoint against its config, reading headers only.

    Returns:
        Where each expected tensor lies. Tensors that the model does not know are left out.

    Raises:
        WeightsError: A tensor is missing, doubled, truncated, of a layer beyond the config's, or
            has a wrong shape or dtype.
    """
    found: dict[str, TensorEntry] = {}
    for shard in find_shards(folder):
        for name, entry in read_header(shard).items():
            if name in found:
                raise WeightsError(f"{shard}: tensor {name} is also in {found[name].file.name}")
            found[name] = entry
    for name, entry in found.items():
        layer = _LAYER.match(name)
        if layer and int(layer[1]) >= config.num_hidden_layers:
            raise WeightsError(
                f"{entry.file}: tensor {name} is there,"
                f" config.json calls for {config.num_hidden_layers} layers (num_hidden_layers)"
            )
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
        if entry_or_none.dtype not in _FLOATS:
            raise WeightsError(
                f"{entry_or_none.file}: tensor {name} has dtype {entry_or_none.dtype},"
                f" not one of {', '.join(_FLOATS)}"
            )
    return {name: found[name] for name in expected}


def iter_weights(
    folder: Path | str, config: Step1Config, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every expected tensor, cast to `dtype`, one shard after the other.

    Raises:
        WeightsError: As `check_weights`, before the first tensor; or, in the place of a tensor, it
            holds a value that is not finite.
    """
    entries = check_weights(folder, config)
    by_file: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        by_file.setdefault(entry.file, []).append(name)
    for file, names in by_file.items():
        with safe_open(file, framework="pt") as tensors:
            for name in names:
                tensor = tensors.get_tensor(name)
                if not bool(torch.isfinite(tensor).all()):
                    raise WeightsError(f"{file}: tensor {name} holds values that are not finite")
                yield name, tensor.to(dtype)
