"""What every recipe needs.

A resumable loop with a cosine schedule, progress, and a clock as its budget.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def half_is_fast() -> bool:
    """Whether bfloat16 is quicker than float32 here: by far with AMX, and by far not without."""
    return torch.cpu._is_amx_tile_supported()


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    *,
    steps: int,
    rate: float,
    state: Path,
    warm_up: int = 100,
    weight_decay: float = 0.01,
    clip: float = 5.0,
    report: int = 50,
    save: int = 200,
) -> None:
    """Trains `model` for `steps` steps of AdamW; goes on from `state` when it is there.

    `loss(step)` returns the loss of a step and figures to report; it draws its batch from `step`,
    so that a resumed run sees what an unbroken one would.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    first = 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    began = time.monotonic()
    means: dict[str, float] = {}
    model.train()
    for step in range(first, steps):
        warm = min(1.0, (step + 1) / warm_up)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        value, figures = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        for name, figure in figures.items():
            means[name] = means.get(name, figure) * 0.95 + figure * 0.05
        if (step + 1) % report == 0:
            told = "  ".join(f"{name} {figure:.4f}" for name, figure in means.items())
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}/{steps}  {told}  {pace:.2f} s/step", flush=True)
        if (step + 1) % save == 0 or step + 1 == steps:
            _save(
                state,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
    model.eval()


def _save(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
