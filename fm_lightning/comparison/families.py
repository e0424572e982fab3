"""Families: trivial manipulations of sampling, each with a dose.

A family draws a curve in (memorized share, quality) that begins at the base schedule, dose 0. A schedule supports a claim
only where it lies below these curves: every family lowers memorization in a trivial way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fm_lightning.comparison.rows import Row
from fm_lightning.data.samples import Samples
from fm_lightning.errors import UserError
from fm_lightning.flow import Brake, Constant, Gain, Schedule
from fm_lightning.guidance import Guidance

LATE = 0.9  # where late manipulations begin, as a share of the time
RUNGS = 8  # doses of the ladder per coarse dose
EARLIER_CHECKPOINT, AVERAGE = "earlier checkpoint", "average"
LEAST_GUIDANCE = 0.5  # below it, samples move away from their class and copies become more again
Direction = Literal["lowers", "raises"]


@dataclass(frozen=True)
class Family:
    """One manipulation at any dose.

    Attributes:
        name: as sentences use it, for example "late brake".
        manipulate: ``manipulate(base, dose)`` -> Schedule, for a dose above 0; or a Row, where a family changes more than
            how is sampled.
        doses: coarse doses, ascending from above 0, whose subdivision is the ladder; the last one is the largest allowed.
        direction: what it can do to memorization; a claim about lowering it leaves out families that only raise it.
        cheap: its doses cost little compared with base, because they share its steps.
        existing: ``existing(base)`` -> the doses that exist, ascending from 0, where not every number is one (steps are
            whole, checkpoints were kept).
        least: the smallest dose above 0 that exists.
        check: raises UserError for data that the family does not exist for.
        caution: what a verdict against it has to add, as a clause.

    Raises:
        UserError: fewer than three doses, or doses that do not ascend from above 0.

    Example:
        >>> shrunk = Family("start shrunk", lambda base, dose: replace(base, x0_scale=1 - dose), (0.05, 0.1, 0.2, 0.3, 0.4))
        >>> shrunk.at(Schedule(), 0.1).x0_scale
        0.9
    """

    name: str
    manipulate: Callable[[Schedule, float], Schedule | Row]
    doses: tuple[float, ...]
    direction: Direction = "lowers"
    cheap: bool = False
    existing: Callable[[Schedule], tuple[float, ...]] | None = None
    least: float = 0.0
    check: Callable[[Samples], None] | None = None
    caution: str = ""

    def __post_init__(self) -> None:
        if len(self.doses) < (3 if self.existing is None else 2) or not all(
            a < b for a, b in itertools.pairwise((0.0, *self.doses))
        ):
            raise UserError(
                f"doses={self.doses} of the family {self.name!r} must be three or more, ascending from above 0.",
                "Pass for example doses=(0.02, 0.05, 0.1, 0.2, 0.4)",
            )

    @property
    def together(self) -> tuple[float, ...]:
        """Doses that are calibrated at once: the coarse ones of a cheap family, which share the steps of base."""
        return self.doses if self.cheap and self.existing is None else ()

    def ladder(self, base: Schedule) -> tuple[float, ...]:
        """The doses that may be sampled, ascending from 0: those that exist, or eight between two coarse ones.

        Schedules that need nearly the same dose get the same one, which is sampled once.
        """
        if self.existing is not None:
            return tuple(dose for dose in self.existing(base) if dose <= self.doses[-1] + 1e-12)
        pairs = itertools.pairwise((0.0, *self.doses))
        rungs = (b if k == RUNGS else a + (b - a) * k / RUNGS for a, b in pairs for k in range(1, RUNGS + 1))
        return (0.0, *(dose for dose in rungs if dose >= self.least))

    def at(self, base: Schedule, dose: float) -> Schedule | Row:
        """The base schedule manipulated by ``dose``, from 0 (base itself) to the largest of ``doses``."""
        if not 0 <= dose <= self.doses[-1]:
            raise UserError(
                f"dose={dose:g} of the family {self.name!r} is out of range.", f"Pass 0 to {self.doses[-1]:g}."
            )
        return self.manipulate(base, dose) if dose else base


Which = Literal["none", "cheap", "all"] | Sequence[str | Family]


def asks_all(which: Which) -> bool:
    """Whether all known families are asked, alone or with others."""
    return which == "all" or (not isinstance(which, str) and "all" in which)


def families(schedule: Schedule, guidable: bool = False) -> tuple[Family, ...]:
    """The families that the package knows, as far as they exist for plain sampling with ``schedule``, its base.

    ``guidable`` says that the network has a null label, which guidance needs.

    Fewer steps and noise put in on the way need fixed steps, and so are missing for adaptive solvers; the latter also where the
    base puts in noise itself. The largest doses suit data in [-1, 1] and latents of unit variance; others are given by
    ``dataclasses.replace(family, doses=...)``.
    """
    known = [NOISE, BLEND, EARLY_STOP, LATE_BRAKE]
    fixed = schedule.method.fixed_steps
    if fixed and schedule.inject_noise is None:
        known.append(NOISE_LATE)
    if fixed and schedule.steps >= 4:
        known.append(replace(FEWER_STEPS, doses=_coarse_steps(schedule.steps)))
    known += [CONSTANT_GAIN, TEMPERATURE]
    if guidable:
        known += [LESS_GUIDANCE] if _scale(schedule) > LEAST_GUIDANCE else []
        known.append(MORE_GUIDANCE)
    if schedule.diffusion is not None:  # where gains have no meaning
        known = [family for family in known if family not in (LATE_BRAKE, CONSTANT_GAIN)]
    return tuple(known)


def own_doses(schedule: Schedule) -> dict[float, Schedule]:
    """A schedule's own dose curve: factor -> the schedule with its gain that much as strong (alpha and beta of KTS, the
    scale of SSC). Left out: factors at which the gain does not stay positive. Empty without a gain.
    """
    curve = {}
    for factor in (0.5, 1.5, 2.0) if schedule.gain is not None else ():
        assert schedule.gain is not None
        try:
            curve[factor] = replace(schedule, gain=schedule.gain.scaled(factor))
        except UserError:  # the sampler refuses it as it would refuse a user's
            continue
    return curve


def _late(base: Schedule) -> float:
    """The base grid's last edge at or before 0.9 of its time, so that a late manipulation has at least one step left."""
    edges = base.edges[:-1]
    return float(edges[edges <= _at(base, LATE) + 1e-9].max())


def _at(base: Schedule, share: float) -> float:
    """The time at a share of the base's time, which may begin after 0 and end before 1."""
    return base.t_start + (base.t_end - base.t_start) * share


def _scale(base: Schedule) -> float:
    return base.guidance.scale if base.guidance is not None else 1.0


def _guided(base: Schedule, scale: float) -> Schedule:
    return replace(base, guidance=replace(base.guidance or Guidance(), scale=scale))


def _with_gain(base: Schedule, gain: Gain) -> Schedule:
    return replace(base, gain=gain if base.gain is None else base.gain * gain)


def _stopped(base: Schedule, dose: float) -> Schedule:
    # The same edges up to the cut, so that base's velocities serve for it too.
    end = _at(base, 1 - dose)
    edges = base.edges
    kept = edges[edges < end - 1e-12]
    return replace(base, grid=torch.cat([kept, torch.tensor([end], dtype=torch.float64)]), t_end=1.0)


def _fewer(base: Schedule, dose: float) -> Schedule:
    steps = max(1, round(1 / (dose + 1 / base.steps)))
    if isinstance(base.grid, str):
        return replace(base, steps=steps)
    return replace(base, grid=base.edges[torch.linspace(0, base.steps, steps + 1).round().long()], t_end=1.0)


def _whole_steps(base: Schedule) -> tuple[float, ...]:
    return tuple(1 / steps - 1 / base.steps for steps in range(base.steps, 0, -1))


def _coarse_steps(steps: int) -> tuple[float, ...]:
    fewer = sorted({max(1, round(steps / part)) for part in (1.5, 2.5, 4, 6, 10)} - {steps}, reverse=True)
    return tuple(1 / few - 1 / steps for few in fewer)


NOISE = Family("noise", lambda base, sigma: base.with_noise(sigma), (0.02, 0.05, 0.1, 0.2, 0.4), cheap=True)
BLEND = Family(
    "blend",
    lambda base, weight: replace(base, blend=1 - (1 - base.blend) * (1 - weight)),
    (0.01, 0.03, 0.06, 0.12, 0.25),
    cheap=True,
)
EARLY_STOP = Family("early stop", _stopped, (0.01, 0.025, 0.05, 0.1, 0.2), cheap=True)
LATE_BRAKE = Family(
    "late brake",
    lambda base, dose: _with_gain(base, Brake(1 - dose, _late(base))),
    (0.1, 0.25, 0.5, 0.75, 0.95),
    cheap=True,
)
NOISE_LATE = Family(
    "noise at .9",
    lambda base, sigma: replace(base, inject_noise=(_late(base), sigma)),
    (0.02, 0.05, 0.1, 0.2, 0.4),
    cheap=True,
)
FEWER_STEPS = Family("fewer steps", _fewer, _coarse_steps(100), existing=_whole_steps)
CONSTANT_GAIN = Family(
    "constant gain", lambda base, dose: _with_gain(base, Constant(1 - dose)), (0.02, 0.05, 0.1, 0.2, 0.35)
)
TEMPERATURE = Family(
    "noise temperature",
    lambda base, dose: replace(base, x0_scale=base.x0_scale * (1 + dose)),
    (0.02, 0.05, 0.1, 0.2, 0.4),
)
# The dose is the share of the way from the base's scale down to 0.5, where samples begin to move away from their class.
LESS_GUIDANCE = Family(
    "less guidance",
    lambda base, dose: _guided(base, _scale(base) + dose * (LEAST_GUIDANCE - _scale(base))),
    (0.2, 0.4, 0.6, 0.8, 1.0),
)
MORE_GUIDANCE = Family(
    "more guidance",
    lambda base, dose: _guided(base, _scale(base) + dose),
    (0.25, 0.5, 1.0, 2.0, 4.0),
    direction="raises",
)
