"""The mean of several checkpoints of one model: answers new questions better than each of them.

Points of one long training lie in one valley, and their mean near its bottom (model soups, Wortsman
et al., 2022). Everything but the weights is the first folder's.

    python average.py --out FOLDER CHECKPOINT CHECKPOINT...
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(folders: list[Path], out: Path) -> None:
    """Writes the mean, in the type of the first; `out` may be one of them.

    Raises:
        ValueError: a folder holds other names or shapes than the first.
    """
    first, *others = [load_file(folder / WEIGHTS) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if {n: t.shape for n, t in other.items()} != {n: t.shape for n, t in first.items()}:
            raise ValueError(f"{folder} is no checkpoint of the model in {folders[0]}")
    mean = {
        name: torch.stack([each[name].float() for each in (first, *others)])
        .mean(0)
        .to(tensor.dtype)
        for name, tensor in first.items()
    }
    if out.resolve() != folders[0].resolve():
        shutil.copytree(
            folders[0], out, symlinks=True, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(WEIGHTS),
        )  # fmt: skip
    save_file(mean, out / WEIGHTS)


def main() -> None:
    """Averages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    average(options.checkpoints, options.out)


if __name__ == "__main__":
    main()
