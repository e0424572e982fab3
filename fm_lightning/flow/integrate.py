"""Integration: from noise to samples, with the energy of each trajectory.

The state of the ODE is the pair (x, E) with ``dE/dt = 1/2 eta^2 ||v||^2``; the solver's own quadrature gives both. For one
schedule this is

    def sample(velocity, x0, schedule):
        x, energy = x0 * schedule.x0_scale, []
        for step in schedule.plan():
            v = []
            for row, told in zip(step.tableau.a, step.told):
                stage = x + step.dt * sum(a * eta * k for a, eta, k in zip(row, step.gains, v))
                v.append(velocity(stage, torch.full((len(x),), told)))
            bs = list(zip(step.tableau.b, step.gains, v))
            energy.append(step.dt * sum(b * eta**2 * k.flatten(1).square().sum(1) / 2 for b, eta, k in bs))
            x = x + step.dt * sum(b * eta * k for b, eta, k in bs)
        return x, torch.stack(energy)

What the code below adds: E never feeds back into x, so the steps keep the norms ``||v||`` of their stages, and the quadrature is
applied to all of them at once at the end; inside the loop there is one addition per stage, one norm, and nothing that
waits for the device. And schedules share their beginnings: as long as two of them take equal steps from the same state they
are one branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_lightning.errors import NotFiniteError
from fm_lightning.flow.adaptive import check_adaptive, integrate_adaptively
from fm_lightning.flow.evaluation import Evaluator, norm
from fm_lightning.flow.schedule import Schedule, not_finite_fix
from fm_lightning.flow.solvers import Step
from fm_lightning.flow.trained import begin_where_trained
from fm_lightning.flow.velocity import Velocity, evaluating
from fm_lightning.guidance import Guidance
from fm_lightning.noise import DIFFUSION, END, INJECTED, NoiseStream, noise
from fm_lightning.trajectory import Trajectory

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
        probe: ``probe(i, t, x, v)`` is called at each step with the state and the unshaped velocity at its left edge;
            refused with an adaptive solver, which has no such steps.
    """
    begun = {"": begin_where_trained(schedule or Schedule(), velocity)}
    with evaluating(velocity):
        return _integrate(Evaluator(velocity, labels), x0, begun, seeds, base_seed, probe)[""]


def integrate_many(
    velocity: Velocity,
    x0: Tensor,
    schedules: Mapping[str, Schedule],
    *,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
    base_seed: int = 0,
    merge_rows: int = 0,
    evaluated: Callable[[], None] | None = None,
) -> dict[str, Trajectory]:
    """Samples along several schedules from the same noise, evaluating the network once where they still agree.

    Args:
        velocity: a network, evaluated in evaluation mode and left as it was, or a function ``velocity(x, t, y)``: ``x``
            ``[B, ...]``, ``t [B]`` in x's dtype (one expanded number where it is the same for all rows), ``y [B]`` int64
            or None; returns like x. A ``DeclaredVelocity`` also says whether it exists at ``t = 1`` and what a call costs.
            A ``TrainedVelocity`` says from which time on it was trained: schedules without a ``t_start`` begin there.
            A ``GuidedVelocity`` that records fills the trajectories' ``guidance_energy`` and ``guidance_gap``.
        x0: ``[B, ...]`` initial noise, of a floating dtype.
        schedules: name -> Schedule.
        labels: ``[B]`` int64, handed to the velocity.
        seeds: ``[B]`` int64; kept in the trajectories, and decide the noise added during and after sampling (default
            0 ... B - 1).
        base_seed: the run's seed, for that noise.
        merge_rows: evaluate branches that have parted in one network batch of at most this many rows, which is faster
            where B alone does not fill the device. 0 evaluates each by itself.
        evaluated: called before each call of the velocity, for example by a progress bar.

    Returns:
        name -> Trajectory, bitwise what ``integrate`` gives for each alone (with merged batches: to about 1e-5). No
        gradients are kept.

    Raises:
        UserError: x0 is no floating ``[B, ...]``, labels or seeds of another length, a velocity that returns another
            shape than x's, a schedule that begins before the velocity's training does, or an adaptive solver where fixed
            steps are needed.
        NotFiniteError: a trajectory became infinite or NaN; the message names schedule, step and time.
    """
    evaluate = Evaluator(velocity, labels, merge_rows, evaluated)
    begun = {name: begin_where_trained(schedule, velocity) for name, schedule in schedules.items()}
    with evaluating(velocity):
        return _integrate(evaluate, x0, begun, seeds, base_seed, None)


@dataclass
class _Branch:
    """Schedules that have taken the same steps so far."""

    x: Tensor
    names: list[str]
    norms: list[Tensor]  # [1, B] each, or [3, B]: the Evaluator's norms at every stage of every step so far


@torch.no_grad()
def _integrate(
    evaluate: Evaluator,
    x0: Tensor,
    schedules: Mapping[str, Schedule],
    seeds: Tensor | None,
    base_seed: int,
    probe: Probe | None,
) -> dict[str, Trajectory]:
    evaluate.check_start(x0, seeds)
    fixed = {name: schedule for name, schedule in schedules.items() if schedule.method.fixed_steps}
    plans = {name: schedule.plan(evaluate.singular_end, evaluate.guided) for name, schedule in fixed.items()}
    for guidance in {g for plan in plans.values() for step in plan for g in step.guidance}:
        evaluate.under(guidance)  # refused before any work
    adaptive = {name: schedule for name, schedule in schedules.items() if name not in plans}
    for schedule in adaptive.values():
        check_adaptive(evaluate, schedule, probe is not None)
    finished = {n: integrate_adaptively(evaluate, _start(x0, s), s, n or "base") for n, s in adaptive.items()}
    rows = range(len(x0)) if seeds is None else seeds
    starts: dict[float, list[str]] = {}
    for name in plans:
        starts.setdefault(schedules[name].start_scale, []).append(name)
    live = [_Branch(x0 * scale if scale != 1 else x0, names, []) for scale, names in starts.items()]
    injected = None
    if any(step.noise for plan in plans.values() for step in plan):
        injected = _drawn(x0, rows, base_seed, INJECTED)[0]
    # Draw i of a seed's stream belongs to step i of every schedule, whichever of them use it.
    random_steps = max((i + 1 for plan in plans.values() for i, step in enumerate(plan) if step.jump), default=0)
    stream = NoiseStream(rows, x0.shape[1:], base_seed, DIFFUSION, random_steps) if random_steps else None
    i = 0
    while live:
        forks: list[tuple[_Branch, Step]] = []
        for branch in live:
            if len(branch.names) == 1 and i < len(plans[branch.names[0]]):  # alone: no steps to compare with
                forks.append((branch, plans[branch.names[0]][i]))
                continue
            ways: dict[Step, list[str]] = {}
            for name in branch.names:
                if i == len(plans[name]):
                    finished[name] = _trajectory(evaluate, x0, branch, schedules[name], plans[name], injected)
                else:
                    ways.setdefault(plans[name][i], []).append(name)
            for k, (step, names) in enumerate(ways.items(), 1):
                norms = branch.norms if k == len(ways) else list(branch.norms)
                forks.append((_Branch(branch.x, names, norms), step))
        for branch, step in forks:
            if step.noise:
                assert injected is not None
                branch.x = branch.x.add(injected, alpha=step.noise)
        jump = None
        if stream is not None and i < random_steps:
            jump = stream.draw().to(x0.device, x0.dtype, non_blocking=x0.is_cuda)
        _advance(evaluate, forks, i, probe, jump)
        live = [branch for branch, _ in forks]
        i += 1

    _require_finite(finished, schedules)
    found = {name: _finish(finished[name], x0, schedules[name], rows, base_seed) for name in schedules}
    return {name: replace(trajectory, labels=evaluate.labels, seeds=seeds) for name, trajectory in found.items()}


def _advance(
    evaluate: Evaluator, forks: Sequence[tuple[_Branch, Step]], i: int, probe: Probe | None, jump: Tensor | None
) -> None:
    """Takes one step on every branch, stage by stage; ``jump`` is the noise of those that are random."""
    for branch, step in forks:
        if jump is not None and step.jump and len(step.told) > 1:  # Heun's comes first, as in SiT
            branch.x = branch.x.add(jump, alpha=step.jump)
    velocities: list[list[Tensor]] = [[] for _ in forks]
    drifts: list[list[Tensor]] = [[] for _ in forks]
    for stage in range(max((len(step.told) for _, step in forks), default=0)):
        # Branches that just parted share one tensor: they ask for the same first velocity and get it once.
        asked: dict[tuple[int, float, Guidance | None], Tensor] = {}
        askers: list[tuple[int, tuple[int, float, Guidance | None]]] = []
        for f, (branch, step) in enumerate(forks):
            if stage < len(step.told):
                x = step.stage(branch.x, stage, drifts[f])
                guidance = step.guidance[stage] if step.guidance else None
                key = id(x), step.told[stage], guidance  # `asked` keeps x alive, so that an id names one tensor
                asked[key] = x
                askers.append((f, key))
        answers = dict(zip(asked, evaluate([(x, told, guidance) for (_, told, guidance), x in asked.items()])))
        for f, key in askers:
            v, norms = answers[key]
            branch, step = forks[f]
            velocities[f].append(v)
            drifts[f].append(
                v.mul(step.drift[stage][0]).add(asked[key], alpha=step.drift[stage][1]) if step.drift else v
            )
            branch.norms.append(norms)
    for (branch, step), vs, ds in zip(forks, velocities, drifts):
        if probe is not None:
            probe(i, step.t, branch.x, vs[0])
        branch.x = step.end(branch.x, ds)
        if jump is not None and step.jump and len(step.told) == 1:
            branch.x = branch.x.add(jump, alpha=step.jump)


def _trajectory(
    evaluate: Evaluator, x0: Tensor, branch: _Branch, schedule: Schedule, plan: Sequence[Step], injected: Tensor | None
) -> Trajectory:
    stages = [(i, step.dt * b / 2, eta) for i, step in enumerate(plan) for b, eta in zip(step.tableau.b, step.gains)]
    owner, weights = [i for i, _, _ in stages], [weight for _, weight, _ in stages]
    shaped = [weight * eta**2 for _, weight, eta in stages]
    all_squares = torch.stack(branch.norms).square()  # [stages of all steps, 1 or 3, B]
    squares = all_squares[:, 0]
    plain = _like(squares, weights)[:, None]  # products with it are sums, which autocast leaves in float32
    energy = squares * _like(squares, shaped)[:, None]
    if len(owner) > len(plan):
        index = torch.tensor(owner).to(energy.device, non_blocking=energy.is_cuda)
        energy = energy.new_zeros(len(plan), energy.shape[1]).index_add_(0, index, energy)
    start = _start(x0, schedule)
    for step in plan:
        if step.noise and injected is not None:  # a jump is no way that the velocity went
            start = start.add(injected, alpha=step.noise)
    guidance: dict[str, Tensor] = {}
    if all_squares.shape[1] == 3:
        lefts = [owner.index(i) for i in range(len(plan))]
        guidance["guidance_energy"] = (plain * (squares - all_squares[:, 1])).sum(0)
        guidance["guidance_gap"] = torch.stack([branch.norms[left][2] for left in lefts])
    undefined = energy.new_full((len(x0),), torch.nan)
    return Trajectory(
        x1=branch.x,
        energy=energy,
        field_energy=(plain * squares).sum(0),
        displacement=undefined if schedule.diffusion else norm(branch.x - start, x0.dtype).square() / 2,
        times=schedule.edges,
        gain=torch.tensor([step.gains[0] for step in plan], dtype=torch.float64),
        nfe=sum(
            evaluate.evaluations(told, guidance)
            for step in plan
            for told, guidance in zip(step.told, step.guidance or [None] * len(step.told))
        ),
        **guidance,
    )


def _start(x0: Tensor, schedule: Schedule) -> Tensor:
    return x0 * schedule.start_scale if schedule.start_scale != 1 else x0


def _drawn(x: Tensor, rows: Tensor | range, base_seed: int, purpose: int, draws: int = 1) -> Tensor:
    """``[draws, B, ...]`` independent noise like x, of the seeds ``rows``; the first draw is the same however many follow."""
    drawn = noise(rows, (draws, *x.shape[1:]), base_seed, purpose).movedim(1, 0)
    return drawn.to(x.device, x.dtype, non_blocking=x.is_cuda)


def _like(x: Tensor, numbers: Sequence[float]) -> Tensor:
    """The numbers on x's device, without waiting for what its device still has to do."""
    return torch.tensor(numbers, dtype=x.dtype).to(x.device, non_blocking=x.is_cuda)


def _require_finite(trajectories: Mapping[str, Trajectory], schedules: Mapping[str, Schedule]) -> None:
    # x1 shows in the displacement, so these two see everything; the host waits once for all schedules.
    ends = {n: norm(t.x1, t.x1.dtype) if schedules[n].diffusion else t.displacement for n, t in trajectories.items()}
    sound = {name: t.energy.isfinite().all(0) & ends[name].isfinite() for name, t in trajectories.items()}
    if not sound or bool(torch.stack([samples.all() for samples in sound.values()]).all()):
        return
    for name, t in trajectories.items():
        if hit := int((~sound[name]).sum()):
            steps = (~t.energy.isfinite()).any(1)
            step = int(steps.int().argmax()) if steps.any() else len(t.energy) - 1
            raise NotFiniteError(
                f"Schedule {name or 'base'!r} gives infinite or NaN values from step {step} "
                f"(t = {float(t.times[step]):.4g}) in {hit} of {len(t)} samples.",
                not_finite_fix(schedules[name]),
            )


def _finish(trajectory: Trajectory, x0: Tensor, schedule: Schedule, rows: Tensor | range, base_seed: int) -> Trajectory:
    x1 = trajectory.x1
    if schedule.blend:
        x1 = x1.lerp(_start(x0, schedule), schedule.blend)
    if any(schedule.noises):
        for sigma, drawn in zip(schedule.noises, _drawn(x1, rows, base_seed, END, len(schedule.noises))):
            x1 = x1.add(drawn, alpha=sigma)
    return replace(trajectory, x1=x1)
