"""What every recipe needs.

A resumable loop with a cosine schedule and progress. Under `torchrun --nproc-per-node N` a recipe
that takes its part of each batch by `place` (`tts.py`) trains in N processes: gradients are
averaged, the first process reports and saves.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn


def half_is_fast() -> bool:
    """Whether bfloat16 is quicker than float32 here: by far with AMX, and by far not without."""
    return torch.cpu._is_amx_tile_supported()


def place() -> tuple[int, int]:
    """Which of how many processes this is; joins them when `torchrun` started it."""
    if "RANK" not in os.environ:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


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
    rank, processes = place()
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
        if processes > 1:
            _average(model)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        for name, figure in figures.items():
            means[name] = means.get(name, figure) * 0.95 + figure * 0.05
        if rank == 0 and (step + 1) % report == 0:
            told = "  ".join(f"{name} {figure:.4f}" for name, figure in means.items())
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}/{steps}  {told}  {pace:.2f} s/step", flush=True)
        if rank == 0 and ((step + 1) % save == 0 or step + 1 == steps):
            _save(
                state,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
    model.eval()


def _average(model: nn.Module) -> None:
    """Gradients of all processes, in one message."""
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    together = torch.cat([each.flatten() for each in gradients])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for each, part in zip(
        gradients, together.split([each.numel() for each in gradients]), strict=True
    ):
        each.copy_(part.view_as(each))


def _save(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
