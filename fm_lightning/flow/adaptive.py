"""Adaptive integration through torchdiffeq, with the energies in the state and left out of the error norm."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fm_lightning.errors import NotFiniteError, UserError
from fm_lightning.flow.evaluation import Evaluator, norm
from fm_lightning.flow.schedule import Schedule, not_finite_fix
from fm_lightning.flow.solvers import Adaptive
from fm_lightning.trajectory import Trajectory

State = tuple[Tensor, Tensor, Tensor]  # x [B, ...], E [B], field E [B]


def check_adaptive(evaluate: Evaluator, schedule: Schedule, probed: bool) -> None:
    """Raises UserError where the velocity does not exist at ``t = 1``, or fixed steps are needed: by a probe, or to record."""
    if evaluate.singular_end and schedule.t_end >= 1:
        raise UserError(
            f"{schedule.solver} evaluates the velocity at t = 1, where {evaluate.name} does not exist.",
            "Use solver='euler'.",
        )
    if probed or evaluate.records:
        what = "a probe" if probed else "a velocity that records its guidance"
        raise UserError(f"solver={schedule.solver!r} has no fixed steps, which {what} needs.", "Use solver='rk4'.")


def integrate_adaptively(evaluate: Evaluator, x0: Tensor, schedule: Schedule, name: str) -> Trajectory:
    """Integrates ``(x, E, field E)`` and reads the energies off at the schedule's grid.

    All samples take the steps that the worst of them needs, so that the tolerance holds for each sample in any
    batch. Within the tolerance a sample still depends on its batch: alone it takes longer steps. Where the field pulls
    neighbours apart, the end moves by more than the tolerance.

    Args:
        evaluate: the velocity.
        x0: ``[B, ...]`` initial state.
        schedule: grid, gain, told time and the adaptive solver.
        name: the schedule's, for messages.

    Raises:
        NotFiniteError: the state became infinite or NaN.
    """
    from torchdiffeq import odeint  # late: with scipy, which fixed steps do not need

    solver = cast(Adaptive, schedule.method)
    dtype = torch.promote_types(x0.dtype, torch.float32)
    edges = schedule.edges
    evaluations, time = 0, 0.0

    def augmented(t: Tensor, state: State) -> State:
        nonlocal evaluations, time
        time = min(max(float(t), schedule.t_start), schedule.t_end)  # rounding must not lead outside
        told = schedule.tell(time)
        guidance = schedule.guidance_at(told, evaluate.guided)
        evaluations += evaluate.evaluations(told, guidance)
        eta = float(schedule.eta(torch.tensor([time], dtype=torch.float64)))
        [(v, norms)] = evaluate([(state[0], told, guidance)])
        power = norms[0].square() / 2
        return (v * eta).to(x0.dtype), power * eta**2, power

    zeros = torch.zeros(x0.shape[0], dtype=dtype, device=x0.device)
    try:
        xs, energy, field = odeint(
            augmented,
            (x0, zeros, zeros),
            edges.to(x0.device),
            rtol=solver.tolerance,
            atol=solver.tolerance,
            method=solver.name,
            # Without step_t the last step would look beyond t_end, where the field does not exist, and interpolate.
            options={"norm": worst_sample, "dtype": torch.float64, "step_t": edges[-1:].to(x0.device)},
        )
    except AssertionError as error:  # torchdiffeq's way to say that the state exploded
        step = int((edges[:-1] <= time).sum()) - 1
        raise NotFiniteError(
            f"Schedule {name!r} gives infinite or NaN values from step {step} (t = {time:.4g}).",
            not_finite_fix(schedule),
        ) from error
    x1 = xs[-1]
    return Trajectory(
        x1=x1,
        energy=torch.diff(energy, dim=0),
        field_energy=field[-1],
        displacement=norm(x1 - x0, x0.dtype).square() / 2,
        times=edges,
        gain=schedule.eta(edges[:-1]),
        nfe=evaluations,
    )


def worst_sample(state: State) -> Tensor:
    """The largest root mean square of a sample's state, energies left out; 0 of no samples."""
    squares = state[0].flatten(1).square().mean(1)
    # The mean over the batch would let many easy samples hide a hard one.
    return squares.amax().sqrt() if len(squares) else squares.sum()
