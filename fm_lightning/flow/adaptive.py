"""Dormand-Prince 5(4) through torchdiffeq, with the energies in the state and left out of the error norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchdiffeq import odeint

from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.flow.schedule import Schedule

TOLERANCE = 1e-5  # relative and absolute, of the state's root mean square


def dopri5(velocity: Callable[..., Tensor], x0: Tensor, schedule: Schedule, labels: Tensor | None) -> Trajectory:
    """Integrates ``(x, E, field E)`` adaptively and reads the energies off at the schedule's grid.

    The step size follows the error of the whole batch, so a sample depends, within the tolerance, on its company.

    Args:
        velocity: ``velocity(x, t, y)``.
        x0: ``[B, ...]`` initial state.
        schedule: grid, gain and told time.
        labels: ``[B]`` int64 or None.
    """
    dtype = torch.promote_types(x0.dtype, torch.float32)
    edges = schedule.edges
    evaluations = 0

    def augmented(t: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal evaluations
        evaluations += 1
        # torchdiffeq's first look at a right-hand side may lie a rounding error outside the interval.
        time = min(max(float(t), 0.0), schedule.t_end)
        eta = float(schedule.eta(torch.tensor([time], dtype=torch.float64)))
        x = state[0]
        told = int(999 * time) / 999 if schedule.told_time == "floor999" else time
        v = velocity(x, x.new_full((x.shape[0],), told), labels)
        power = torch.linalg.vector_norm(v.flatten(1), dim=1, dtype=dtype).square() / 2
        return (v * eta).to(x.dtype), power * eta**2, power

    def error_norm(state: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return state[0].square().mean().sqrt()

    zeros = torch.zeros(x0.shape[0], dtype=dtype, device=x0.device)
    xs, energy, field = odeint(
        augmented,
        (x0, zeros, zeros),
        edges.to(x0.device),
        rtol=TOLERANCE,
        atol=TOLERANCE,
        method="dopri5",
        options={"norm": error_norm, "dtype": torch.float64},
    )
    x1 = xs[-1]
    return Trajectory(
        x1=x1,
        energy=torch.diff(energy, dim=0),
        field_energy=field[-1],
        displacement=torch.linalg.vector_norm((x1 - x0).flatten(1), dim=1, dtype=dtype).square() / 2,
        times=edges,
        gain=schedule.eta(edges[:-1]),
        nfe=evaluations,
    )
