"""A FunASR Paraformer folder on disk: its files, its configuration, its tensors (spec 1.1).

Contract: `open_checkpoint` reads ``configuration.json`` (``file_path_metas``), ``config.yaml``,
the CMVN statistics and, lazily, ``model.pt``; `ParaformerCheckpoint.load` fills a module and
names every tensor that is missing, of the wrong shape or of the wrong type in one line. Weights
are read with ``weights_only``: a pickle that holds anything but tensors is refused. Not for
choosing devices or dtypes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from paraformer.config import ConfigError, ParaformerConfig

PUBLISHED_FOLDER = Path(
    "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
)
"""Where a Step-Audio-Tokenizer folder holds its Paraformer checkpoint."""

_NAMED_AT_MOST = 4


class CheckpointError(ValueError):
    """A checkpoint folder is incomplete, damaged or of another kind; one line names the cause."""


@dataclass(frozen=True)
class Cmvn:
    """Mean and variance normalisation ``(x + shift) * scale``; float32 ``[feature_size]`` each."""

    shift: Tensor
    scale: Tensor


@dataclass(frozen=True)
class ParaformerCheckpoint:
    """An opened folder. Tensors are read from disk at the first use of `tensors`."""

    folder: Path
    config: ParaformerConfig
    cmvn: Cmvn
    weights_file: Path
    token_list_file: Path | None

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors by their name, without a ``module.`` prefix.

        Raises:
            CheckpointError: the file is truncated, damaged or holds something other than tensors.
        """
        return read_tensors(self.weights_file)

    def load(self, module: nn.Module, prefix: str) -> None:
        """Copies the tensors ``prefix + name`` into the parameters and buffers of a module.

        Args:
            module: the module to fill; persistent buffers count as parameters.
            prefix: e.g. ``encoder.``. Tensors outside the prefix are not looked at.

        Raises:
            CheckpointError: a tensor is missing, has another shape, is not floating point or not
                finite, or one below the prefix belongs to nothing in the module.
        """
        wanted = module.state_dict()
        found = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }
        problems = [
            f"{prefix}{name} {problem}"
            for name, parameter in wanted.items()
            if (problem := _problem(found.get(name), parameter))
        ]
        problems += [f"{prefix}{name} is unexpected" for name in found if name not in wanted]
        if problems:
            more = (
                f" (and {len(problems) - _NAMED_AT_MOST} more)"
                if len(problems) > _NAMED_AT_MOST
                else ""
            )
            raise CheckpointError(
                f"{self.weights_file}: {'; '.join(problems[:_NAMED_AT_MOST])}{more}"
            )
        module.load_state_dict({name: found[name].float() for name in wanted})


def open_checkpoint(folder: Path) -> ParaformerCheckpoint:
    """Opens a FunASR folder without reading its weights.

    Raises:
        CheckpointError: a file is missing or malformed.
    """
    paths = _read_json(folder / "configuration.json").get("file_path_metas")
    if not isinstance(paths, Mapping):
        raise CheckpointError(f"{folder / 'configuration.json'}: file_path_metas is missing")

    def path_of(*keys: str) -> Path | None:
        value: object = paths
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return folder / value if isinstance(value, str) else None

    files = {
        "init_param": path_of("init_param"),
        "config": path_of("config"),
        "frontend_conf.cmvn_file": path_of("frontend_conf", "cmvn_file"),
    }
    for key, path in files.items():
        if path is None:
            raise CheckpointError(
                f"{folder / 'configuration.json'}: file_path_metas.{key} is missing"
            )
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
    weights_file, config_file, cmvn_file = (path for path in files.values() if path is not None)
    try:
        config = ParaformerConfig.from_yaml(yaml.safe_load(config_file.read_text("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config_file} is not YAML: {_one_line(error)}") from error
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return ParaformerCheckpoint(
        folder=folder,
        config=config,
        cmvn=read_cmvn(cmvn_file, config.frontend.feature_size),
        weights_file=weights_file,
        token_list_file=path_of("tokenizer_conf", "token_list"),
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a PyTorch checkpoint of tensors, unwrapping ``state_dict`` and ``module.``.

    Raises:
        CheckpointError: the file is truncated, damaged or holds something other than tensors.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle makes torch raise almost anything, KeyError and AssertionError included.
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint of tensors: {_one_line(error)}"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds {type(loaded).__name__}, not named tensors")
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is {type(value).__name__}, not a tensor")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def read_cmvn(path: Path, size: int) -> Cmvn:
    """Reads Kaldi nnet text: the vectors that follow ``<AddShift>`` and ``<Rescale>``.

    Raises:
        CheckpointError: a vector is missing, of another length or not finite.
    """
    text = path.read_text("utf-8", errors="replace")

    def vector(tag: str) -> Tensor:
        _, found, rest = text.partition(f"<{tag}>")
        body, closed, _ = rest.partition("[")[2].partition("]")
        if not (found and closed):
            raise CheckpointError(f"{path}: <{tag}> is missing or truncated")
        try:
            values = np.array(body.split(), dtype=np.float32)
        except ValueError as error:
            raise CheckpointError(f"{path}: <{tag}> is not numeric: {_one_line(error)}") from error
        if values.shape != (size,) or not np.isfinite(values).all():
            raise CheckpointError(
                f"{path}: <{tag}> has {values.size} values, {size} finite ones expected"
            )
        return torch.from_numpy(values)

    return Cmvn(shift=vector("AddShift"), scale=vector("Rescale"))


def _problem(found: Tensor | None, wanted: Tensor) -> str | None:
    if found is None:
        return "is missing"
    if found.shape != wanted.shape:
        return f"has shape {list(found.shape)}, {list(wanted.shape)} expected"
    if not found.is_floating_point():
        return f"has dtype {found.dtype}, floating point expected"
    if not torch.isfinite(found).all():
        return "holds values that are not finite"
    return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {_one_line(error)}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected an object")
    return document


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
