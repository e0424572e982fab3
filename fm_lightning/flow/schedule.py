"""Schedule: how to sample, as one value; and the plan of single steps that it stands for.

KTS is a Schedule with a gain; what it is compared with are other Schedules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.flow.diffusion import Diffusion
from fm_lightning.flow.gains import Constant, Gain
from fm_lightning.flow.grids import given_edges, named_grid
from fm_lightning.flow.solvers import EULER, SOLVERS, Solver, Step, Tableau
from fm_lightning.guidance import Guidance

TOLD_TIMES = ("grid", "displacement", "floor999")


@dataclass(frozen=True)
class Schedule:
    """How to sample: from ``t_start`` (noise) to ``t_end`` along ``dx/dt = eta(t) v(x, told time)``.

    Args:
        gain: ``eta(t)``; None is plain sampling.
        steps: number of steps, at least 1.
        solver: "euler", "midpoint", "heun", "rk4", or "dopri5" (adaptive, to 1e-5 for every sample; the grid says where
            energies are read off; see ``paired``).
        grid: "uniform", "cosine", "shifted:S", or the edges themselves, ascending times in [0, 1] (they then decide
            ``steps``, ``t_start`` and ``t_end``).
        t_end: where sampling stops, in (0, 1]; named grids are scaled to end there.
        told_time: "grid" tells the network the grid's time; "displacement" tells it the sum of ``eta dt`` so far,
            which passes 1 where the gain's mean does;
            "floor999" tells it ``int(999 t) / 999`` as the paper's release does.
        x0_scale: factor on the initial noise.
        end_noise: standard deviation of independent noise added to the finished sample, or of several, each of its own
            draw (see ``with_noise``). Energies do not count it.
        inject_noise: ``(t, sigma)``: independent noise of standard deviation sigma is put into the state at the grid's
            last edge at or before t, in [t_start, t_end), before sampling continues from there. Neither energies nor displacement
            count it.
        blend: weight w of the start in the finished sample, ``(1 - w) x1 + w x0``, in [0, 1); before the end noise.
            Neither energies nor displacement count it.
        allow_reverse: accept a gain that reaches zero or less.
        guidance: classifier-free guidance of a network with a null label, in place of the velocity's own; None takes the
            velocity as it is.
        diffusion: sample the SDE with this diffusion, by Euler-Maruyama (solver "euler") or Heun. The last step, and a step
            from where the diffusion is infinite, follow the velocity in one Euler step. Energies are those of the velocity
            along the path; displacement and excess do not exist and are NaN.
        t_start: where sampling begins, in [0, t_end). 0 is the largest noise level that the network was trained on (see
            ``flow.trained``). The start is ``(1 - t_start) x0_scale x0``. Named grids are scaled to begin there.

    Raises:
        UserError: for a value out of its range, a gain that is not positive where the solver evaluates it, or a diffusion
            with a gain or another solver.
    """

    gain: Gain | None = None
    steps: int = 100
    solver: str = "euler"
    grid: str | Sequence[float] | Tensor = "uniform"
    t_end: float = 1.0
    told_time: str = "grid"
    x0_scale: float = 1.0
    end_noise: float | tuple[float, ...] = 0.0
    inject_noise: tuple[float, float] | None = None
    blend: float = 0.0
    allow_reverse: bool = False
    guidance: Guidance | None = None
    diffusion: Diffusion | None = None
    t_start: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.grid, str):
            edges = given_edges(self.grid, self.t_start, self.t_end)
            # Kept as plain numbers: a schedule compares, hashes and goes into a results file.
            object.__setattr__(self, "grid", edges)
            object.__setattr__(self, "steps", len(edges) - 1)
            object.__setattr__(self, "t_start", edges[0])
            object.__setattr__(self, "t_end", edges[-1])
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise UserError(f"steps={self.steps} must be a whole number of at least 1.", "Use for example steps=100.")
        if not 0 < self.t_end <= 1:
            raise UserError(f"t_end={self.t_end:g} must be above 0 and at most 1.", "Use for example t_end=1.")
        if not 0 <= self.t_start < self.t_end:
            raise UserError(
                f"t_start={self.t_start:g} must be at least 0 and below t_end={self.t_end:g}.",
                "Use for example t_start=0.",
            )
        for name, given, allowed in (
            ("solver", self.solver, tuple(SOLVERS)),
            ("told_time", self.told_time, TOLD_TIMES),
        ):
            if given not in allowed:
                raise UserError(f"{name}={given!r} is unknown.", f"Choose among {', '.join(allowed)}.")
        if self.told_time == "displacement":
            self._need_fixed_steps("told_time='displacement'")
        if not isinstance(self.end_noise, int | float):
            try:
                several = tuple(map(float, self.end_noise))
            except (TypeError, ValueError):
                several = (math.nan,)
            object.__setattr__(self, "end_noise", several if len(several) > 1 else sum(several))
        for name, value in (("x0_scale", self.x0_scale), *(("end_noise", sigma) for sigma in self.noises)):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(
                    f"{name}={value:g} must be a finite number of at least 0.", f"Use for example {name}=0.1."
                )
        if not 0 <= self.blend < 1:
            raise UserError(f"blend={self.blend:g} must be at least 0 and below 1.", "Use for example blend=0.05.")
        self._check_injected()
        _ = self.edges  # an unknown name is refused here, not in the middle of a run
        self._check_gain()
        self._check_diffusion()

    @property
    def edges(self) -> Tensor:
        """``[steps + 1]`` float64 times from ``t_start`` to ``t_end``."""
        if isinstance(self.grid, str):
            edges = named_grid(self.grid, self.steps) * (self.t_end - self.t_start) + self.t_start
            edges[-1] = self.t_end
            return edges
        return torch.tensor(self.grid, dtype=torch.float64)

    @property
    def advances(self) -> Tensor:
        """``[steps]`` float64: how far each step moves on the field's own clock, the solver's quadrature of eta over it."""
        return self.method.advances(self.eta, self.edges)

    @property
    def method(self) -> Solver:
        """The solver itself."""
        return SOLVERS[self.solver]

    @property
    def paired(self) -> bool:
        """Whether a seed's sample is the same in any batch, up to the network's rounding.

        Rows of a comparison are then paired by seed to rounding. Rows sampled adaptively are not: the steps follow the
        worst sample of the batch, and a sample depends on the others in its batch within the tolerance.
        """
        return self.method.fixed_steps

    @property
    def start_scale(self) -> float:
        """The factor on the noise at ``t_start``."""
        return self.x0_scale * (1 - self.t_start)

    @property
    def noises(self) -> tuple[float, ...]:
        """The standard deviations of ``end_noise``, one for each independent draw."""
        return self.end_noise if isinstance(self.end_noise, tuple) else (self.end_noise,)

    def with_noise(self, sigma: float) -> Schedule:
        """The same sampling plus end noise of standard deviation sigma, independent of what the schedule has of it."""
        return replace(self, end_noise=(*self.noises, sigma) if any(self.noises) else sigma)

    def eta(self, t: Tensor) -> Tensor:
        """The gain at the times ``t``; ones for plain sampling."""
        return (self.gain or Constant())(t)

    def plan(self, singular_end: bool = False, guided: bool = False) -> list[Step]:
        """The single steps, all numbers in float64 and on the host.

        Args:
            singular_end: the field does not exist at ``t = 1`` (the closed-form velocity): a last step with a stage
                there becomes an Euler step.
            guided: the velocity has guidance of its own, which the schedule's replaces at all times.

        Raises:
            UserError: the solver is adaptive.
        """
        tableau = self._need_fixed_steps("plan()")
        edges = self.edges.tolist()
        shapes: list[tuple[float, float, Tableau]] = []
        for i, (t, end) in enumerate(itertools.pairwise(edges)):
            euler = self.diffusion is not None and not self._random(i, t)
            shapes.append((t, end, EULER if euler or (singular_end and end >= 1 and 1 in tableau.c) else tableau))
        times = [use.stages(t, end) for t, end, use in shapes]
        eta = iter(self.eta(torch.tensor([time for stages in times for time in stages], dtype=torch.float64)).tolist())
        injected = self._injected(edges)
        steps: list[Step] = []
        travelled = self.t_start
        for (t, end, use), stages in zip(shapes, times):
            gains = tuple(next(eta) for _ in stages)
            if self.told_time == "displacement":
                told = [travelled + (end - t) * sum(a * g for a, g in zip(row, gains)) for row in use.a]
            else:
                told = [self.tell(time) for time in stages]
            guidance = tuple(self.guidance_at(time, guided) for time in told)
            step = Step(t, end - t, use, gains, tuple(told), injected.get(len(steps), 0.0), guidance)
            if not any(guidance):
                step = replace(step, guidance=())
            if self.diffusion is not None and self._random(len(steps), t):
                pulls = [self.diffusion.pull(time) for time in stages]
                drift = tuple((1 + k * time, -k) for k, time in zip(pulls, stages))
                step = replace(step, drift=drift, jump=math.sqrt(2 * (1 - t) * pulls[0] * step.dt))
            steps.append(step)
            travelled += step.advance
        return steps

    def guidance_at(self, told: float, guided: bool = False) -> Guidance | None:
        """The guidance at a told time; None where the velocity is taken as it is. ``guided`` as for ``plan``."""
        if self.guidance is None:
            return None
        now = self.guidance.at(told)
        return now if guided or now != Guidance() else None

    def _random(self, i: int, t: float) -> bool:
        """Whether step i, from t, adds noise."""
        return self.diffusion is not None and i < self.steps - 1 and self.diffusion.exists(t)

    def tell(self, t: float) -> float:
        """The time that the network is told at ``t`` ("displacement" needs the steps before, see ``plan``)."""
        # A product like 999 * (7 / 111) falls a rounding error short of its whole number.
        return math.floor(999 * t + 1e-9) / 999 if self.told_time == "floor999" else t

    def _injected(self, edges: Sequence[float]) -> dict[int, float]:
        """Index of the step before which noise is added -> its standard deviation."""
        if self.inject_noise is None:
            return {}
        time, sigma = self.inject_noise
        # 0.9 is an edge of 10 steps also where the edge was rounded to above it.
        return {max(i for i, edge in enumerate(edges[:-1]) if edge <= time + 1e-9): sigma}

    def _check_injected(self) -> None:
        if self.inject_noise is None:
            return
        try:
            time, sigma = map(float, self.inject_noise)
        except (TypeError, ValueError):
            time = sigma = math.nan
        if not (self.t_start <= time < self.t_end and 0 <= sigma < math.inf):
            raise UserError(
                f"inject_noise={self.inject_noise!r} must be a time in [{self.t_start:g}, {self.t_end:g}) and "
                "a finite deviation.",
                f"Use for example inject_noise=({self.t_start + 0.9 * (self.t_end - self.t_start):g}, 0.05).",
            )
        self._need_fixed_steps(f"inject_noise={self.inject_noise!r}")
        # Without noise nothing is added: such schedules are equal and share all their steps.
        object.__setattr__(self, "inject_noise", (time, sigma) if sigma else None)

    def _need_fixed_steps(self, what: str) -> Tableau:
        if not isinstance(self.method, Tableau):
            raise UserError(f"{what} needs a solver with fixed steps, not {self.solver!r}.", "Use solver='rk4'.")
        return self.method

    def _check_diffusion(self) -> None:
        if self.diffusion is None:
            return
        if self.solver not in ("euler", "heun"):
            raise UserError(f"A diffusion cannot be sampled with solver={self.solver!r}.", "Use 'euler' or 'heun'.")
        if self.gain is not None:
            raise UserError("A gain has no meaning with a diffusion yet.", "Leave one of the two out.")
        if not self.diffusion.scale:  # such schedules are equal and share all their steps
            object.__setattr__(self, "diffusion", None)

    def _check_gain(self) -> None:
        if self.gain is None or self.allow_reverse:
            return
        if not isinstance(self.gain, Gain):
            raise UserError(f"gain={self.gain!r} is not a gain.", "Use for example gain=KTS(alpha=0.01, beta=0.01).")
        times = self.method.times(self.edges)
        eta = self.gain(times)
        if not (eta > 0).all():
            worst = int(eta.argmin())
            remedy = self.gain.remedy(times) or "a weaker gain"
            raise UserError(
                f"{self.gain} is not above 0 but {float(eta[worst]):.3g} at t = {float(times[worst]):.4g}, a time of "
                f"{self.steps} {self.solver} steps.",
                f"Use {remedy} (or allow_reverse=True).",
            )


def plain(schedule: Schedule) -> Schedule:
    """The same sampling without its gain."""
    return replace(schedule, gain=None)


def not_finite_fix(schedule: Schedule) -> str:
    """What to do about a trajectory that is not finite."""
    return f"{'Weaken or remove its gain, or train' if schedule.gain else 'Train'} longer with a lower learning rate."
