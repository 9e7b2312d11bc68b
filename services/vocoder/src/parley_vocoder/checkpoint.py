"""Reads `flow.pt` and `hift.pt`: strict, safe, and with errors that name the tensor.

Files are opened with `weights_only`, so nothing in them runs. Every parameter of the model must be
there, with its shape, and nothing else may be; weight norm is folded into plain weights whichever
of its two key styles the file uses (spec section 4.4).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

_ON_DISK = (torch.float32, torch.bfloat16, torch.float16)
_LEGACY = ("weight_g", "weight_v")
_PARAMETRIZED = ("parametrizations.weight.original0", "parametrizations.weight.original1")


class CheckpointError(ValueError):
    """A checkpoint cannot be used; one line that names the file and the tensor."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a state dict file, as they are on disk.

    Raises:
        CheckpointError: the file is missing, truncated, not a state dict, or holds a tensor whose
            dtype is not a float or differs from the rest of the file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle makes torch raise almost anything, AssertionError included.
        cause = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: truncated or not a weights file ({path.stat().st_size} bytes): "
            f"{cause[0][:200] if cause else type(error).__name__}"
        ) from error
    if not isinstance(stored, Mapping) or not stored:
        raise CheckpointError(
            f"{path}: expected a mapping of tensors, found {type(stored).__name__}"
        )
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {name}: expected a tensor, found {type(tensor).__name__}"
            )
        tensors[str(name)] = tensor
    usual = Counter(tensor.dtype for tensor in tensors.values()).most_common(1)[0][0]
    for name, tensor in tensors.items():
        if tensor.dtype not in _ON_DISK or tensor.dtype != usual:
            raise CheckpointError(
                f"{path}: {name}: dtype {tensor.dtype}, expected {_expected(usual)}"
            )
    return tensors


def _expected(usual: torch.dtype) -> str:
    return str(usual) if usual in _ON_DISK else " or ".join(str(dtype) for dtype in _ON_DISK)


def load_into(module: nn.Module, path: Path) -> None:
    """Fill `module` from the state dict at `path`, in float32.

    Raises:
        CheckpointError: as `read_tensors`, and for a missing, extra, wrongly shaped or non-finite
            tensor, by its name in the file.
    """
    tensors = read_tensors(path)
    if all(name.startswith("generator.") for name in tensors):
        tensors = {name.removeprefix("generator."): tensor for name, tensor in tensors.items()}
    wanted = module.state_dict()
    folded = _fold_weight_norm(tensors, wanted, path)
    missing = sorted(wanted.keys() - folded.keys())
    if missing:
        raise CheckpointError(f"{path}: {missing[0]}: missing{_more(missing)}")
    extra = sorted(folded.keys() - wanted.keys())
    if extra:
        raise CheckpointError(f"{path}: {extra[0]}: not part of this model{_more(extra)}")
    for name, parameter in wanted.items():
        tensor = folded[name]
        _check_shape(path, name, tensor, list(parameter.shape))
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {name}: holds values that are not finite")
    module.load_state_dict(folded)


def _fold_weight_norm(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Plain weights instead of gains and directions, which are judged here: later they are gone."""
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for magnitude, direction in (_LEGACY, _PARAMETRIZED):
            if name.endswith(f".{magnitude}"):
                partner = name.removesuffix(magnitude) + direction
                if partner not in tensors:
                    raise CheckpointError(f"{path}: {partner}: missing")
                break
            if name.endswith(f".{direction}"):
                layer = name.removesuffix(f".{direction}")
                target = wanted.get(f"{layer}.weight")
                if target is None:
                    raise CheckpointError(f"{path}: {name}: not part of this model")
                _check_shape(path, name, tensor, list(target.shape))
                gain = tensors.get(f"{layer}.{magnitude}")
                if gain is None:
                    raise CheckpointError(f"{path}: {layer}.{magnitude}: missing")
                narrow = [tensor.shape[0]] + [1] * (tensor.dim() - 1)
                _check_shape(path, f"{layer}.{magnitude}", gain, narrow)
                axes = tuple(range(1, tensor.dim()))
                norm = tensor.float().norm(dim=axes, keepdim=True)
                folded[f"{layer}.weight"] = gain.float() * tensor.float() / norm
                break
        else:
            folded[name] = tensor.float()
    return folded


def _check_shape(path: Path, name: str, tensor: Tensor, expected: list[int]) -> None:
    if list(tensor.shape) != expected:
        raise CheckpointError(f"{path}: {name}: shape {list(tensor.shape)}, expected {expected}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
