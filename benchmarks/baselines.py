"""What we are compared with, written as its authors or anybody in a hurry would."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.flow.integrate import Velocity


@torch.no_grad()
def bare_euler(velocity: Velocity, x0: Tensor, steps: int) -> Tensor:
    """Plain Euler sampling and nothing else: the least that sampling can cost."""
    x = x0
    for i in range(steps):
        t = x.new_full((1,), i / steps).expand(len(x))  # as ours is told: the network costs the same
        x = x.add(velocity(x, t), alpha=1 / steps)
    return x


@torch.no_grad()
def release_kpe(velocity: Velocity, x0: Tensor, steps: int) -> list[float]:
    """KPE as the paper's release computes it: a second pass, one sample at a time, the energy read back at each step."""
    energies = []
    for x in x0.split(1):
        energy = 0.0
        for i in range(steps):
            v = velocity(x, x.new_full((1,), i / steps))
            energy += 0.5 * v.square().sum().item() / steps
            x = x + v / steps
        energies.append(energy)
    return energies


@torch.no_grad()
def release_sample_with_kpe(velocity: Velocity, x0: Tensor, steps: int) -> tuple[Tensor, list[float]]:
    """The release's samples and their energies: sampling, then the second pass."""
    return bare_euler(velocity, x0, steps), release_kpe(velocity, x0, steps)
