"""The flow's ODE, one Euler step at a time (spec section 4.3, step 7).

A `Trajectory` is one window on its way from noise to mel. Trajectories are independent: any set of
them, at different steps and of different lengths, may take their next step in one batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from parley_vocoder.engine.flow.estimator import Estimator
from parley_vocoder.engine.flow.masked import Mask


@dataclass(frozen=True, slots=True)
class TimeGrid:
    """Times at which the velocity is taken and the step lengths between them.

    Attributes:
        times: t of each step, 0 first.
        steps: dt of each step.
    """

    times: tuple[float, ...]
    steps: tuple[float, ...]

    @classmethod
    def make(cls, count: int, schedule: str, dtype: torch.dtype) -> "TimeGrid":
        """`count` steps over 0..1; `cosine` is 1 - cos(pi/2 * t).

        The reference keeps the grid in the dtype of the flow: in bfloat16 the times are coarse
        (0, .0117, .0508, ...) and accumulate rounding, which the weights are served with.
        """
        span = torch.linspace(0, 1, count + 1, dtype=dtype)
        if schedule == "cosine":
            span = 1 - torch.cos(span * 0.5 * math.pi)
        t, dt = span[0], span[1] - span[0]
        times, steps = [], []
        for index in range(1, count + 1):
            times.append(float(t))
            steps.append(float(dt))
            t = t + dt
            if index < count:
                dt = span[index + 1] - t
        return cls(tuple(times), tuple(steps))


@dataclass(slots=True)
class Trajectory:
    """One window between noise and mel.

    Attributes:
        x: `[80, T]` where it stands; noise at step 0, mel when finished.
        mu: `[80, T]` regulated encoder output.
        spks: `[80]` projected speaker embedding.
        cond: `[80, T]` known mel (the prompt), zeros elsewhere.
        step: Euler steps taken.
    """

    x: Tensor
    mu: Tensor
    spks: Tensor
    cond: Tensor
    step: int = 0

    @property
    def frames(self) -> int:
        """Mel frames T, prompt included."""
        return self.x.shape[-1]


@torch.inference_mode()
def euler_step(
    estimator: Estimator, batch: Sequence[Trajectory], grid: TimeGrid, guidance: float
) -> None:
    """Advance every trajectory of the batch by its own next step, in place.

    Args:
        estimator: the velocity network.
        batch: at least one unfinished trajectory; lengths and steps may differ.
        grid: times and steps.
        guidance: classifier-free guidance rate r: v = (1+r) * conditional - r * unconditional. At 0
            the unconditional half is not computed.
    """
    longest = max(trajectory.frames for trajectory in batch)

    def stack(rows: list[Tensor]) -> Tensor:
        return torch.stack([F.pad(row, (0, longest - row.shape[-1])) for row in rows])

    x = stack([trajectory.x for trajectory in batch])
    mu = stack([trajectory.mu for trajectory in batch])
    cond = stack([trajectory.cond for trajectory in batch])
    spks = torch.stack([trajectory.spks for trajectory in batch])
    times = torch.tensor([grid.times[trajectory.step] for trajectory in batch], device=x.device)
    mask = None
    if any(trajectory.frames < longest for trajectory in batch):
        lengths = torch.tensor([trajectory.frames for trajectory in batch], device=x.device)
        mask = Mask(lengths.repeat(2) if guidance else lengths, longest, x.dtype)
    if guidance:
        velocity = estimator(
            x.repeat(2, 1, 1),
            torch.cat([mu, torch.zeros_like(mu)]),
            times.repeat(2),
            torch.cat([spks, torch.zeros_like(spks)]),
            torch.cat([cond, torch.zeros_like(cond)]),
            mask,
        )
        guided, free = velocity.chunk(2)
        velocity = (1 + guidance) * guided - guidance * free
    else:
        velocity = estimator(x, mu, times, spks, cond, mask)
    for row, trajectory in enumerate(batch):
        moved = velocity[row, :, : trajectory.frames] * grid.steps[trajectory.step]
        trajectory.x = trajectory.x + moved
        trajectory.step += 1
