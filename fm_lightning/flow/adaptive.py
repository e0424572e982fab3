"""Dormand-Prince 5(4) through torchdiffeq, with the energies in the state and left out of the error norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchdiffeq import odeint

from fm_lightning.errors import NotFiniteError
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.flow.schedule import Schedule

TOLERANCE = 1e-5  # relative and absolute, of the state's root mean square


def dopri5(
    velocity: Callable[..., Tensor], x0: Tensor, schedule: Schedule, labels: Tensor | None, name: str
) -> Trajectory:
    """Integrates ``(x, E, field E)`` adaptively and reads the energies off at the schedule's grid.

    The step size follows the error of the whole batch, so a sample depends, within the tolerance, on its company.

    Args:
        velocity: ``velocity(x, t, y)``.
        x0: ``[B, ...]`` initial state.
        schedule: grid, gain and told time.
        labels: ``[B]`` int64 or None.
        name: the schedule's, for messages.

    Raises:
        NotFiniteError: the state became infinite or NaN.
    """
    dtype = torch.promote_types(x0.dtype, torch.float32)
    edges = schedule.edges
    evaluations, time = 0, 0.0

    def augmented(t: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal evaluations, time
        evaluations += 1
        time = min(max(float(t), 0.0), schedule.t_end)  # rounding must not lead outside
        eta = float(schedule.eta(torch.tensor([time], dtype=torch.float64)))
        x = state[0]
        v = velocity(x, x.new_full((1,), schedule.tell(time)).expand(len(x)), labels)
        power = torch.linalg.vector_norm(v.flatten(1), dim=1, dtype=dtype).square() / 2
        return (v * eta).to(x.dtype), power * eta**2, power

    def error_norm(state: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return (state[0].square().sum() / max(1, state[0].numel())).sqrt()

    zeros = torch.zeros(x0.shape[0], dtype=dtype, device=x0.device)
    try:
        xs, energy, field = odeint(
            augmented,
            (x0, zeros, zeros),
            edges.to(x0.device),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            method="dopri5",
            # Without step_t the last step would look beyond t_end, where the field does not exist, and interpolate.
            options={"norm": error_norm, "dtype": torch.float64, "step_t": edges[-1:].to(x0.device)},
        )
    except AssertionError as error:  # torchdiffeq's way to say that the state exploded
        step = int((edges[:-1] <= time).sum()) - 1
        raise NotFiniteError(
            f"the trajectory of schedule {name!r} is not finite from step {step} (t = {time:.4g}) on; expected "
            "finite velocities; train longer, lower the learning rate or weaken the gain"
        ) from error
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
