"""The mean of several checkpoints of one model: answers new questions better than each of them.

Points of one long training lie in one valley, and their mean near its bottom (model soups, Wortsman
et al., 2022). Checkpoints are folders with `model.safetensors`, of which everything but the weights
is the first one's, or files of the decoder (`flow.pt`).

    python average.py --out FOLDER CHECKPOINT CHECKPOINT...
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"


def average(checkpoints: list[Path], out: Path) -> None:
    """Writes the mean, in the type of the first; `out` may be one of them.

    Raises:
        ValueError: a checkpoint holds other names or shapes than the first.
    """
    first, *others = [_tensors(each) for each in checkpoints]
    for checkpoint, other in zip(checkpoints[1:], others, strict=True):
        if {n: t.shape for n, t in other.items()} != {n: t.shape for n, t in first.items()}:
            raise ValueError(f"{checkpoint} is no checkpoint of the model in {checkpoints[0]}")
    mean = {
        name: torch.stack([each[name].float() for each in (first, *others)])
        .mean(0)
        .to(tensor.dtype)
        for name, tensor in first.items()
    }
    if checkpoints[0].is_file():
        torch.save(mean, out)
        return
    if out.resolve() != checkpoints[0].resolve():
        shutil.copytree(
            checkpoints[0], out, symlinks=True, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(WEIGHTS),
        )  # fmt: skip
    save_file(mean, out / WEIGHTS)


def _tensors(checkpoint: Path) -> dict[str, Tensor]:
    if checkpoint.is_dir():
        return load_file(checkpoint / WEIGHTS)
    return torch.load(checkpoint, weights_only=True)


def main() -> None:
    """Averages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    average(options.checkpoints, options.out)


if __name__ == "__main__":
    main()
