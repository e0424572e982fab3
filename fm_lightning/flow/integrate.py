"""Integration: from noise to samples, with the energy of the way.

The state of the ODE is the pair (x, E) with ``dE/dt = 1/2 eta^2 ||v||^2``. E never feeds back into x, so the steps keep the
norms ``||v||`` of their stages and the solver's own quadrature is applied to all of them at once in the end:

    E_i = dt_i * sum_s b_s * 1/2 eta_s^2 ||v_s||^2

Inside the loop there is one addition per stage, one norm, and nothing that waits for the device.

Schedules share their beginnings: as long as two of them take equal steps from the same state they are one branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_lightning.errors import NotFiniteError, UserError
from fm_lightning.flow.adaptive import dopri5
from fm_lightning.flow.schedule import Schedule, Step
from fm_lightning.noise import END, INJECTED, noise
from fm_lightning.trajectory import Trajectory

Velocity = Callable[..., Tensor]  # velocity(x [B, ...], t [B], y [B] | None) -> like x
Probe = Callable[[int, float, Tensor, Tensor], None]


def integrate(
    velocity: Velocity,
    x0: Tensor,
    schedule: Schedule | None = None,
    *,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
    base_seed: int = 0,
    probe: Probe | None = None,
) -> Trajectory:
    """Samples along one schedule. See ``integrate_many``.

    Args:
        probe: ``probe(i, t, x, v)`` is called at each step with the state and the unshaped velocity at its left edge
            (not with "dopri5", which has no such steps).
    """
    return _integrate(velocity, x0, {"": schedule or Schedule()}, labels, seeds, base_seed, 0, probe)[""]


def integrate_many(
    velocity: Velocity,
    x0: Tensor,
    schedules: Mapping[str, Schedule],
    *,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
    base_seed: int = 0,
    merge_rows: int = 0,
) -> dict[str, Trajectory]:
    """Samples along several schedules from the same noise, evaluating the network once where they still agree.

    Args:
        velocity: ``velocity(x, t, y)``: ``x [B, ...]``, ``t [B]`` in x's dtype (one number, expanded, where all rows
            are told the same), ``y [B]`` int64 or None; returns like x.
            An attribute ``singular_end = True`` says that it does not exist at ``t = 1``.
        x0: ``[B, ...]`` initial noise, float32 or float64.
        schedules: name -> Schedule.
        labels: ``[B]`` int64, handed to the velocity.
        seeds: ``[B]`` int64; kept in the trajectories, and decide the noise added at the end or on the way (default
            0 ... B - 1).
        base_seed: the run's seed, for that noise.
        merge_rows: evaluate branches that have parted in one network batch of at most this many rows, which is faster
            where B alone does not fill the device. 0 evaluates each by itself.

    Returns:
        name -> Trajectory, bitwise what ``integrate`` gives for each alone (with merged batches: to about 1e-5). No
        gradients are kept.

    Raises:
        NotFiniteError: a trajectory became infinite or NaN; the message names schedule, step and time.
    """
    return _integrate(velocity, x0, schedules, labels, seeds, base_seed, merge_rows, None)


@dataclass
class _Branch:
    """Schedules that have taken the same steps so far."""

    x: Tensor
    names: list[str]
    norms: list[Tensor]  # [B] each: ||v|| at every stage of every step so far


@torch.no_grad()
def _integrate(
    velocity: Velocity,
    x0: Tensor,
    schedules: Mapping[str, Schedule],
    labels: Tensor | None,
    seeds: Tensor | None,
    base_seed: int,
    merge_rows: int,
    probe: Probe | None,
) -> dict[str, Trajectory]:
    singular = bool(getattr(velocity, "singular_end", False))
    plans = {name: s.plan(singular) for name, s in schedules.items() if s.solver != "dopri5"}
    finished = {}
    for name, schedule in schedules.items():
        if name not in plans:
            if singular and schedule.t_end >= 1:
                raise UserError(
                    f"solver='dopri5' given for {type(velocity).__name__}, which does not exist at t = 1 where dopri5 "
                    "evaluates it, expected a solver with fixed steps; type solver='euler'"
                )
            finished[name] = dopri5(velocity, x0 * schedule.x0_scale, schedule, labels, name or "base")

    starts: dict[float, list[str]] = {}
    for name in plans:
        starts.setdefault(schedules[name].x0_scale, []).append(name)
    live = [_Branch(x0 * scale if scale != 1 else x0, names, []) for scale, names in starts.items()]
    injected = None
    if any(step.noise for plan in plans.values() for step in plan):
        injected = _drawn(x0, seeds, base_seed, INJECTED)
    i = 0
    while live:
        forks: list[tuple[_Branch, Step]] = []
        for branch in live:
            if len(branch.names) == 1 and i < len(plans[branch.names[0]]):  # alone: nobody to compare steps with
                forks.append((branch, plans[branch.names[0]][i]))
                continue
            ways: dict[Step, list[str]] = {}
            for name in branch.names:
                if i == len(plans[name]):
                    finished[name] = _trajectory(x0, branch, schedules[name], plans[name], injected)
                else:
                    ways.setdefault(plans[name][i], []).append(name)
            last = len(ways) - 1
            for k, (step, names) in enumerate(ways.items()):
                norms = branch.norms if k == last else list(branch.norms)
                forks.append((_Branch(branch.x, names, norms), step))
        for branch, step in forks:
            if step.noise:
                assert injected is not None
                branch.x = branch.x.add(injected, alpha=step.noise)
        _advance(velocity, forks, labels, merge_rows, i, probe)
        live = [branch for branch, _ in forks]
        i += 1

    _require_finite(finished)
    return {name: _finish(finished[name], x0, schedules[name], labels, seeds, base_seed) for name in schedules}


def _advance(
    velocity: Velocity,
    forks: Sequence[tuple[_Branch, Step]],
    labels: Tensor | None,
    merge_rows: int,
    i: int,
    probe: Probe | None,
) -> None:
    """Takes one step on every branch, stage by stage."""
    velocities: list[list[Tensor]] = [[] for _ in forks]
    for stage in range(max((len(step.told) for _, step in forks), default=0)):
        # Branches that just parted share one tensor: they ask for the same first velocity and get it once.
        asked: dict[tuple[int, float], Tensor] = {}
        askers: list[tuple[int, tuple[int, float]]] = []
        for f, (branch, step) in enumerate(forks):
            if stage < len(step.told):
                x = branch.x
                for a, eta, v in zip(step.tableau.a[stage], step.gains, velocities[f]):
                    if a:
                        x = x.add(v, alpha=step.dt * a * eta)
                key = id(x), step.told[stage]  # `asked` keeps x alive, so that an id names one tensor
                asked[key] = x
                askers.append((f, key))
        answers = dict(
            zip(asked, _evaluate(velocity, [(x, told) for (_, told), x in asked.items()], labels, merge_rows))
        )
        for f, key in askers:
            v, norm = answers[key]
            velocities[f].append(v)
            forks[f][0].norms.append(norm)
    for (branch, step), vs in zip(forks, velocities):
        if probe is not None:
            probe(i, step.t, branch.x, vs[0])
        for b, eta, v in zip(step.tableau.b, step.gains, vs):
            if b:
                branch.x = branch.x.add(v, alpha=step.dt * b * eta)


def _evaluate(
    velocity: Velocity, asked: Sequence[tuple[Tensor, float]], labels: Tensor | None, merge_rows: int
) -> list[tuple[Tensor, Tensor]]:
    """Velocity and its norm for each (state, told time), several states in one batch of at most ``merge_rows`` rows."""
    if not asked:
        return []
    rows = len(asked[0][0])
    together = max(1, merge_rows // max(1, rows))
    answers: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(asked), together):
        group = asked[first : first + together]
        if len(group) == 1:
            x, told = group[0]
            # One number in memory, expanded: a network that notices embeds the time once, not once per row.
            v = velocity(x, x.new_full((1,), told).expand(rows), labels)
            answers.append((v, _norm(v, x.dtype)))
        else:
            x = torch.cat([x for x, _ in group])
            t = torch.cat([x.new_full((rows,), told) for _, told in group])
            v = velocity(x, t, None if labels is None else labels.repeat(len(group)))
            answers += zip(v.split(rows or 1), _norm(v, x.dtype).split(rows or 1))
    return answers


def _norm(v: Tensor, state_dtype: torch.dtype) -> Tensor:
    """``[B]`` Euclidean norms over every dimension of the sample, float32 at least, whatever the network's dtype."""
    dtype = torch.promote_types(state_dtype, torch.float32)
    # Not flattened first: of a channels-last tensor that would be a copy.
    return torch.linalg.vector_norm(v, dim=tuple(range(1, max(2, v.ndim))), dtype=dtype)


def _trajectory(
    x0: Tensor, branch: _Branch, schedule: Schedule, plan: Sequence[Step], injected: Tensor | None
) -> Trajectory:
    owner, weights, shaped = [], [], []
    for i, step in enumerate(plan):
        for b, eta in zip(step.tableau.b, step.gains):
            owner.append(i)
            weights.append(step.dt * b / 2)
            shaped.append(step.dt * b / 2 * eta**2)
    squares = torch.stack(branch.norms).square()  # [stages of all steps, B]
    energy = squares * _like(squares, shaped)[:, None]
    if len(owner) > len(plan):
        index = torch.tensor(owner).to(energy.device, non_blocking=energy.is_cuda)
        energy = energy.new_zeros(len(plan), energy.shape[1]).index_add_(0, index, energy)
    start = _start(x0, schedule)
    for step in plan:
        if step.noise and injected is not None:  # a jump is no way that the velocity went
            start = start.add(injected, alpha=step.noise)
    return Trajectory(
        x1=branch.x,
        energy=energy,
        field_energy=_like(squares, weights) @ squares,
        displacement=_norm(branch.x - start, x0.dtype).square() / 2,
        times=schedule.edges,
        gain=torch.tensor([step.gains[0] for step in plan], dtype=torch.float64),
        nfe=len(owner),
    )


def _start(x0: Tensor, schedule: Schedule) -> Tensor:
    return x0 * schedule.x0_scale if schedule.x0_scale != 1 else x0


def _drawn(x: Tensor, seeds: Tensor | None, base_seed: int, purpose: int) -> Tensor:
    """Noise like x, of its seeds."""
    rows = range(len(x)) if seeds is None else seeds
    return noise(rows, x.shape[1:], base_seed, purpose).to(x.device, x.dtype, non_blocking=x.is_cuda)


def _like(x: Tensor, numbers: Sequence[float]) -> Tensor:
    """The numbers beside x, without waiting for what its device still has to do."""
    return torch.tensor(numbers, dtype=x.dtype).to(x.device, non_blocking=x.is_cuda)


def _require_finite(trajectories: Mapping[str, Trajectory]) -> None:
    # x1 shows in the displacement, so these two see everything; the host waits once for all schedules.
    sound = [t.energy.isfinite().all() & t.displacement.isfinite().all() for t in trajectories.values()]
    if not sound or bool(torch.stack(sound).all()):
        return
    for name, t in trajectories.items():
        bad = ~t.energy.isfinite()
        step = int(bad.any(1).int().argmax()) if bad.any() else len(t.energy) - 1
        hit = int((bad.any(0) | ~t.displacement.isfinite()).sum())
        if hit:
            raise NotFiniteError(
                f"the trajectory of schedule {name or 'base'!r} is not finite from step {step} (t = {float(t.times[step]):.4g}) "
                f"on, in {hit} of {len(t)} samples; expected finite velocities; train longer, lower the learning rate or "
                "weaken the gain, or leave it out"
            )


def _finish(
    trajectory: Trajectory, x0: Tensor, schedule: Schedule, labels: Tensor | None, seeds: Tensor | None, base_seed: int
) -> Trajectory:
    x1 = trajectory.x1
    if schedule.blend:
        x1 = x1.lerp(_start(x0, schedule), schedule.blend)
    if schedule.end_noise:
        x1 = x1.add(_drawn(x1, seeds, base_seed, END), alpha=schedule.end_noise)
    return replace(trajectory, x1=x1, labels=labels, seeds=seeds)
