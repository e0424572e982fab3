"""Verdict: does a schedule do more than what is trivial?

First it is asked whether the comparison says anything: the baseline must copy more than held-out real data do, copies and other
samples must be enough, and the schedule must lower the memorized share. Then the schedule is compared with the curve of each
family (``verdicts.family_verdict``). "Better" means better than the families tested. Better than all of them is an
intersection-union test and needs no correction; several schedules judged together are corrected by Holm on the largest p of
each (``confirm``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fm_lightning.estimate import Estimate, share_change
from fm_lightning.verdicts.family_verdict import Contest, seeds_needed
from fm_lightning.verdicts.margins import Margins, resolution
from fm_lightning.verdicts.outcomes import FRECHET_FROM, LEAST_COPIES, MANY, Findings, Refusal
from fm_lightning.verdicts.paragraph import paragraph
from fm_lightning.verdicts.residual import Distance, Observed, relative
from fm_lightning.verdicts.wording import claim


@dataclass(frozen=True)
class Verdict(Findings):
    """What may be said about one schedule: findings, and their words."""

    @property
    def sentence(self) -> str:
        """The claim as one sentence."""
        return f"{self.schedule} {claim(self)}."

    def __str__(self) -> str:
        return paragraph(self)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Real data that were not trained on, measured as samples are.

    Attributes:
        hits: ``[m]`` bool, which of them count as copies of training images: the floor of the memorized share.
        distances: their distances to the real images, with the contribution of each of them. If they are themselves the real
            images, those of one half of them to the other.
        references: the number of real images that distances are measured to.
        seen: the share of these that training saw; None where it is unknown.
    """

    hits: NDArray[np.bool_] | None = None
    distances: Mapping[Distance, Estimate] = field(default_factory=dict)
    references: int = 0
    seen: float | None = None


def judging_distance(n: int, width: int, row: Observed) -> Distance | None:
    """The extrapolated Fréchet distance from 10 seeds per feature, else the kernel distance; None without it."""
    if row.has("frechet") and n >= FRECHET_FROM * width:
        return "frechet"
    return "kernel" if row.has("kernel") else None


def verdict(
    schedule: str,
    row: Observed,
    base: Observed,
    families: Mapping[str, Sequence[Sequence[Observed]]],
    width: int,
    margins: Margins | None = None,
    held_out: HeldOut | None = None,
    discrete: Mapping[str, float] | None = None,
    by: Distance | None = None,
) -> Verdict:
    """Judges one schedule.

    Args:
        schedule: its name.
        row: what was measured of the schedule.
        base: what was measured of plain sampling, the baseline.
        families: name -> for each place where the family's curve reaches the schedule (``choose_doses``) its three rows;
            empty where it does not. Families that can only raise memorization do not belong here.
        width: D, the number of features that the distances stand on.
        margins: the smallest effects that matter.
        held_out: real data that were not trained on: the floor of copies, and of dQ (``margins.resolution``).
        discrete: the families whose doses merely exist, such as checkpoints, and how rough their curves are: the standard
            deviation of points about a smooth curve, as a share of Q.
        by: the distance that judges, alone; by default ``judging_distance``, which the other one must not contradict.
    """
    n, margins, held_out = len(row.hits), margins or Margins(), held_out or HeldOut()
    lowered = share_change(base.hits, row.hits)
    margin = margins.resolve(base.memorized, math.nan)  # its other half follows with a distance
    found = Verdict(schedule, n, row.memorized, base.memorized, lowered, margin, seen=held_out.seen)
    if held_out.hits is not None and len(held_out.hits):
        found = replace(found, held_out_memorized=float(held_out.hits.mean()))
    distance = by if by and row.has(by) and base.has(by) else judging_distance(n, width, base)
    if distance is not None:
        found = _with_distances(found, row, base, distance, margins, held_out)
    if refusal := _too_few(row, base, held_out, margin.memorized):
        return replace(found, refused=refusal, n_needed=_enough(row, base, refusal))
    closed = lowered.high < margin.memorized
    if distance is None:
        if closed:
            return replace(found, not_lowered=True)
        if not base.has("frechet"):
            return replace(found, refused="no distance")
        return replace(found, refused="few for Fréchet", n_needed=FRECHET_FROM * width)
    if found.margin.quality <= 0:
        return replace(found, refused="no margin")
    if closed:
        return replace(found, not_lowered=True)
    reached = any(families.values()) or not families
    if row.memorized >= base.memorized or (lowered.low <= 0 and not reached):
        gap = max(margin.memorized - lowered.value, lowered.value)
        return replace(found, refused="lowering open", n_needed=seeds_needed(n, lowered, gap))
    if not families:
        return replace(found, refused="no family")
    other = None if by else _second(row, base, distance)
    contest = Contest(row, base, distance, other, found.margin)
    return replace(found, families=contest.verdicts(families, discrete or {}))


def _second(row: Observed, base: Observed, distance: Distance) -> Distance | None:
    """The distance that does not judge, where it was measured."""
    other: Distance = "kernel" if distance == "frechet" else "frechet"
    return other if row.has(other) and base.has(other) else None


def _with_distances(
    found: Verdict, row: Observed, base: Observed, distance: Distance, margins: Margins, held_out: HeldOut
) -> Verdict:
    """The findings with what the schedule does to distances, and with the whole margin."""
    own, plain, real = row.quality(distance), base.quality(distance), held_out.distances.get(distance)
    floor = resolution(real, held_out.references) if real and held_out.references else 0.0
    change, other, other_change = own - plain, _second(row, base, distance), None
    if other is not None:
        other_change = row.quality(other) - base.quality(other)
    return replace(
        found,
        distance=distance,
        quality=own.value,
        base_quality=plain.value,
        quality_change=change.conditional,
        relative_change=relative(change, plain),
        other_change=other_change.conditional if other_change else None,
        other_relative=relative(other_change, base.quality(other)) if other and other_change else None,
        margin=margins.resolve(base.memorized, plain.value, floor, held_out.references),
    )


def _too_few(row: Observed, base: Observed, held_out: HeldOut, margin: float) -> Refusal | None:
    """Why copies cannot be compared; None if they can."""
    if held_out.hits is not None and len(held_out.hits):
        excess = _difference(base.hits, held_out.hits)
        if excess.high < margin:
            return "nothing to lower"
    else:
        excess = None
    copies, left = int(base.hits.sum()), int(row.hits.sum())
    if copies < LEAST_COPIES:
        return "few copies"
    if excess is not None and excess.low <= 0:
        return "floor open"
    if left < LEAST_COPIES:
        return "few left"
    return "few others" if min(int((~r.hits).sum()) for r in (row, base)) < LEAST_COPIES else None


def _difference(these: NDArray[np.bool_], those: NDArray[np.bool_]) -> Estimate:
    """Difference of two shares of different samples, with one hit and one miss added to each (Agresti and Caffo 2000)."""
    (p, n), (q, m) = ((float(x.sum() + 1) / (len(x) + 2), len(x) + 2) for x in (these, those))
    return Estimate(p - q, math.sqrt(p * (1 - p) / n + q * (1 - q) / m))


def _enough(row: Observed, base: Observed, refusal: Refusal) -> int | None:
    """Seeds that would yield enough copies, or enough other samples; None if unknown or beyond ``MANY`` times those used."""
    n = len(row.hits)
    if refusal == "few copies":
        found = int(base.hits.sum())
    elif refusal == "few others":
        found = min(int((~r.hits).sum()) for r in (row, base))
    else:
        return None
    return math.ceil(n * LEAST_COPIES / found) if found and n * LEAST_COPIES <= MANY * n * found else None
