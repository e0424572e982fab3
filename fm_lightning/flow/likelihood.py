"""Log-likelihood of samples along their trajectories (Chen et al. 2018; Grathwohl et al. 2019, arXiv 1810.01367).

Where samples follow ``dx/dt = eta(t) v(x, t)``, their log density falls with the divergence of what moves them:

    log p_1(x1) = log p_0(x0) - int_0^1 eta(t) div v(x_t, t) dt,      p_0 = N(0, x0_scale^2 I)

The integral rides along in the solver, stage by stage, so it is as accurate as its order; with few Euler steps it is not the
exact log density of what these steps do. The divergence is exact, ``sum_d dv_d/dx_d``, by one backward pass per dimension, or
Hutchinson's estimate ``e . (dv/dx)^T e`` with random signs e, by one backward pass per probe. A sample's signs belong to its
seed and stay the same along its trajectory; hence the estimate of its integral is unbiased, and independent probes tell its
standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.errors import NotFiniteError, UserError
from fm_lightning.flow.evaluation import Evaluator
from fm_lightning.flow.schedule import Schedule
from fm_lightning.flow.trained import begin_where_trained
from fm_lightning.flow.velocity import Velocity, evaluating
from fm_lightning.noise import PROBES, noise

EXACT = 128  # dimensions up to which the divergence is exact unless probes are given


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log densities of B samples.

    Attributes:
        log_p: ``[B]`` float64, nats.
        standard_error: ``[B]`` of ``log_p`` by Hutchinson's estimate (needs two probes); None where the divergence is exact.
        log_p0: ``[B]`` of the initial noise.
        divergence: ``[B]`` ``int eta div v dt``.
        x1: ``[B, ...]`` the samples.
        times: ``[S + 1]`` float64.
        profile: ``[S, B]`` float64, what each step adds to ``divergence``.
        forwards: evaluations of the velocity, one for each stage of each step.
        backwards: backward passes: forwards times dimensions (exact) or probes.
    """

    log_p: Tensor
    standard_error: Tensor | None
    log_p0: Tensor
    divergence: Tensor
    x1: Tensor
    times: Tensor
    profile: Tensor
    forwards: int
    backwards: int

    @property
    def bits_per_dim(self) -> Tensor:
        """``[B]`` minus ``log_p`` in bits for each dimension, of the continuous density: no dequantisation is counted."""
        return -self.log_p / (math.log(2) * self.x1[0].numel())


def log_likelihood(
    velocity: Velocity,
    x0: Tensor,
    schedule: Schedule | None = None,
    *,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
    base_seed: int = 0,
    probes: int | None = None,
) -> Likelihood:
    """Samples along a schedule with fixed steps, and their log density.

    Args:
        velocity: as for ``integrate``, differentiable, and each row for itself (no batch statistics).
        x0: ``[B, ...]`` initial noise, standard normal, float32 or float64.
        schedule: without end_noise, inject_noise, blend and diffusion, which would blur the density.
        labels: ``[B]`` int64.
        seeds: ``[B]`` int64; decide the probes' signs (default 0 ... B - 1).
        base_seed: the run's seed.
        probes: Hutchinson's; 0 is the exact divergence, None the exact one up to 128 dimensions and 8 probes beyond.

    Returns:
        see ``Likelihood``. It costs ``forwards`` evaluations and ``backwards`` backward passes of the batch, one graph at a time.

    Raises:
        UserError: an adaptive solver, noise or blend, x0_scale 0, negative probes, or a velocity that carries no gradient.
        NotFiniteError: a log density became infinite or NaN.
    """
    schedule = begin_where_trained(schedule or Schedule(), velocity)
    if not schedule.method.fixed_steps:
        raise UserError(f"A likelihood needs a solver with fixed steps, not {schedule.solver!r}.", "Use solver='rk4'.")
    if any(schedule.noises) or schedule.inject_noise or schedule.blend or schedule.diffusion or not schedule.x0_scale:
        raise UserError(
            "A likelihood needs a positive x0_scale and a path without end_noise, inject_noise, blend or diffusion.",
            "Leave them out.",
        )
    size = x0[0].numel() if len(x0) else math.prod(x0.shape[1:])
    if probes is None:
        probes = 0 if size <= EXACT else 8
    if probes < 0:
        raise UserError(f"probes={probes} must be 0 (exact) or more.", "Use for example probes=8.")

    start = x0 * schedule.start_scale
    signs = _signs(x0, range(len(x0)) if seeds is None else seeds, base_seed, probes) if probes else None
    evaluate = Evaluator(velocity, labels)
    plan = schedule.plan(evaluate.singular_end, evaluate.guided)
    x, forwards = start, 0
    steps: list[Tensor] = []
    with evaluating(velocity):
        for step in plan:
            velocities: list[Tensor] = []
            parts: list[Tensor] = []
            for i, (eta, told, b) in enumerate(zip(step.gains, step.told, step.tableau.b)):
                guidance = step.guidance[i] if step.guidance else None
                field = velocity if guidance is None else evaluate.under(guidance)
                v, divergence = _divergence(field, step.stage(x, i, velocities), told, labels, signs)
                velocities.append(v)
                parts.append(step.dt * b * eta * divergence)
                forwards += 1
            x = step.end(x, velocities)
            steps.append(torch.stack(parts).sum(0))

    profile = torch.stack(steps)  # [S, P, B], P probes or 1
    total = profile.sum(0)
    flat = start.flatten(1).double() / schedule.start_scale
    log_p0 = -flat.square().sum(1) / 2 - size * (0.5 * math.log(2 * math.pi) + math.log(schedule.start_scale))
    log_p = log_p0 - total.mean(0)
    if not log_p.isfinite().all():
        raise NotFiniteError(
            f"The log density of {int((~log_p.isfinite()).sum())} of {len(log_p)} samples is not finite.",
            "End earlier, for example at t_end=0.99.",
        )
    error = total.std(0) / math.sqrt(probes) if probes > 1 else None
    backwards = forwards * (probes or size)
    return Likelihood(log_p, error, log_p0, total.mean(0), x, schedule.edges, profile.mean(1), forwards, backwards)


def _divergence(
    velocity: Velocity, x: Tensor, told: float, labels: Tensor | None, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The velocity, and its divergence ``[P, B]`` in float64: one line for each probe, or a single exact one."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, x.new_full((1,), told).expand(len(x)), labels)
        if not v.requires_grad:
            raise UserError(
                f"The velocity {type(velocity).__name__} carries no gradient.", "Evaluate it outside torch.no_grad()."
            )
        if signs is not None:
            lines = [(_pull(v, e.to(v.dtype), x) * e).flatten(1).double().sum(1) for e in signs]
        else:
            flat = v.flatten(1)
            columns = (_pull(flat[:, d], torch.ones_like(flat[:, d]), x).flatten(1)[:, d] for d in range(flat.shape[1]))
            lines = [torch.stack([column.double() for column in columns]).sum(0)]
    return v.detach(), torch.stack(lines)


def _pull(v: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """``weights . dv/dx``, for all rows at once, because each row of v depends on its own row of x alone."""
    return torch.autograd.grad(v, x, weights, retain_graph=True)[0]


def _signs(x: Tensor, seeds: Tensor | range, base_seed: int, probes: int) -> Tensor:
    """``[P, B, ...]`` of 1 and -1 that belong to the seeds; more probes begin with the same ones."""
    drawn = noise(seeds, (probes, *x.shape[1:]), base_seed, PROBES).transpose(0, 1)
    return torch.where(drawn < 0, -1.0, 1.0).to(x.device, x.dtype)
