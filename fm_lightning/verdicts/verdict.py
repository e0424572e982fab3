"""Judgement: does a schedule do more than what is trivial?

With the residual r of the schedule to a family's curve, its error se (``residual``), z = 1.96, and the smallest effect that
matters, ``m = dQ + |P'(M_S)| dM``:

    better        r + z se < 0 and r < -m
    explained     r - z se > -m: an advantage beyond the margin is excluded. Or a dose of the family, base included, whose
                  paired upper bounds in M and Q lie within dM and dQ of the schedule's
    undecided     otherwise, with the seeds it would take
    out of reach  the family does not reach the schedule's memorized share in its dose range. Where its three points miss it
                  though it does, as calibration is not exact, it is undecided: what was missed cannot be beaten

Not significant is never "the same", and "better" means better than the families tested. Better than all of them is an
intersection-union test and needs no correction; "explained" is corrected by Holm over the families, several schedules by
Holm on the largest p of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

from fm_lightning.verdicts.margins import Margin, Margins
from fm_lightning.verdicts.outcomes import FamilyVerdict, Outcome, Verdict, holm
from fm_lightning.verdicts.residual import (
    LEVEL,
    Estimate,
    Measure,
    Measured,
    Quality,
    Z,
    quality_change,
    residual,
    share_change,
)

LEAST_COPIES = 20  # and as many samples that are none
FRECHET_FROM = 5  # seeds per feature from which the Fréchet distance judges
POWER = 0.84  # normal quantile of the power of 80 % that n_needed aims at


def judging_measure(n: int, width: int, row: Measured) -> Measure | None:
    """The extrapolated Fréchet distance from 5 seeds per feature on, else the kernel distance; None without it."""
    if row.has("frechet") and n >= FRECHET_FROM * width:
        return "frechet"
    return "kernel" if row.has("kernel") else None


def verdict(
    schedule: str,
    row: Measured,
    base: Measured,
    families: Mapping[str, Sequence[Sequence[Measured]]],
    width: int,
    margins: Margins | None = None,
    held_out: Mapping[Measure, Quality] | None = None,
) -> Verdict:
    """Judges one schedule.

    Args:
        schedule: its name.
        row: what was measured of it.
        base: of plain sampling.
        families: name -> for each place where the family's curve reaches the schedule (``choose_doses``) its three rows;
            empty where it does not. Families that can only raise memorization do not belong here.
        width: D, the number of features that the distances stand on.
        margins: the smallest effects that matter.
        held_out: the distances of held-out real data. No dQ goes below two standard errors that as many of them as are compared
            would have: by so much two sets of real data differ.
    """
    n, margins = len(row.hits), margins or Margins()
    lowered = share_change(base.hits, row.hits)
    margin = margins.resolve(base.memorized, math.nan)  # its other half waits for a distance
    found = Verdict(schedule, n, row.memorized, base.memorized, lowered, margin)
    copies = min(int(r.hits.sum()) for r in (row, base))
    others = min(int((~r.hits).sum()) for r in (row, base))
    if min(copies, others) < LEAST_COPIES:
        fewer = min(copies, others)
        return replace(
            found,
            refused="few copies" if copies <= others else "few others",
            n_needed=math.ceil(n * LEAST_COPIES / fewer) if fewer else None,
        )
    closed = lowered.high < margin.memorized
    measure = judging_measure(n, width, base)
    if measure is None:
        if closed:
            return replace(found, not_lowered=True)
        if not base.has("frechet"):
            return replace(found, refused="no distance")
        return replace(found, refused="few for Fréchet", n_needed=FRECHET_FROM * width)
    beside: Measure = "kernel" if measure == "frechet" else "frechet"
    other = beside if row.has(beside) and base.has(beside) else None
    own, plain = row.quality(measure), base.quality(measure)
    real = (held_out or {}).get(measure)
    # A standard error belongs to a number of samples: of as many real ones as are compared.
    floor = real.estimate.error * math.sqrt(len(real.influence) / n) if real else 0.0
    margin = margins.resolve(base.memorized, plain.value, floor)
    found = replace(
        found,
        measure=measure,
        quality=own.value,
        base_quality=plain.value,
        quality_change=quality_change(row, base, measure),
        other_change=quality_change(row, base, other) if other else None,
        margin=margin,
        not_lowered=closed,
    )
    if margin.quality <= 0:
        return replace(found, refused="no margin")
    if closed:
        return found
    reached = any(families.values()) or not families
    if row.memorized >= base.memorized or (lowered.low <= 0 and not reached):
        gap = max(margin.memorized - lowered.value, lowered.value)
        return replace(found, refused="lowering open", n_needed=math.ceil(_needed(n, lowered.error, gap)))
    if not families:
        return replace(found, refused="no family")
    each = [_against(name, row, places, measure, other, margin) for name, places in families.items()]
    return replace(found, families=tuple(_holm_over_families(each, n)))


def _against(
    family: str,
    row: Measured,
    places: Sequence[Sequence[Measured]],
    measure: Measure,
    other: Measure | None,
    margin: Margin,
) -> FamilyVerdict:
    """The verdict over all places where the family's curve reaches the schedule: it has to win at each of them."""
    if not places:
        return FamilyVerdict(family, "out of reach")
    found = [_at_place(family, row, points, measure, other, margin) for points in places]
    explained = [v for v in found if v.outcome == "explained"]
    if explained:
        best = min(explained, key=lambda v: v.p_explained)
        return replace(best, p_explained=min(1.0, len(found) * best.p_explained))
    undecided = [v for v in found if v.outcome == "undecided"]
    return max(undecided or found, key=lambda v: v.p_better)


def _at_place(
    family: str,
    row: Measured,
    points: Sequence[Measured],
    measure: Measure,
    other: Measure | None,
    margin: Margin,
) -> FamilyVerdict:
    dominated = min(_p_dominated(row, dose, measure, margin) for dose in points)  # of base, the gate has asked it
    found = residual(row, points, measure)
    if found is None:
        explained = dominated < LEVEL
        outcome: Outcome = "explained" if explained else "undecided"
        return FamilyVerdict(family, outcome, by_dose=explained, missed=not explained, p_explained=dominated)
    r, m = found.estimate, margin.at(found.slope)
    beside = residual(row, points, other) if other else None
    opposite = beside is not None and beside.estimate.low > 0
    wins = r.high < 0 and r.value < -m
    p_explained = min(dominated, r.p_above(-m))
    result = FamilyVerdict(
        family,
        "undecided",
        r,
        found.slope,
        m,
        other=beside.estimate if beside else None,
        p_better=r.p_below(0.0),
        p_explained=p_explained,
    )
    if dominated < LEVEL:
        return replace(result, outcome="explained", by_dose=not r.low > -m)
    if r.low > -m:
        return replace(result, outcome="explained")
    if wins and not opposite:
        return replace(result, outcome="better")
    if wins:
        return replace(result, disagrees=True)
    return replace(result, n_needed=_decides(r, m, len(row.hits)))


def _p_dominated(row: Measured, dose: Measured, measure: Measure, margin: Margin) -> float:
    """p of the test that the dose is within the margin of the schedule, or better, in both."""
    return max(
        share_change(dose.hits, row.hits).p_below(margin.memorized),
        quality_change(dose, row, measure).p_below(margin.quality),
    )


def _holm_over_families(verdicts: Sequence[FamilyVerdict], n: int) -> list[FamilyVerdict]:
    """What is explained only without the correction for so many families becomes undecided."""
    reached = [i for i, v in enumerate(verdicts) if v.outcome != "out of reach"]
    adjusted = dict(zip(reached, holm([verdicts[i].p_explained for i in reached])))
    out = []
    for i, v in enumerate(verdicts):
        if v.outcome == "explained" and adjusted[i] >= LEVEL:
            strict = NormalDist().inv_cdf(1 - LEVEL / len(reached))
            needed = _decides(v.residual, v.margin, n, strict) if v.residual is not None else None
            v = replace(v, outcome="undecided", by_dose=False, missed=v.residual is None, n_needed=needed)
        out.append(v)
    return out


def _decides(r: Estimate, m: float, n: int, z: float = Z) -> int | None:
    """Seeds at which a residual like this one would be decided, for better or as explained."""
    gap = -r.value if r.value < -m else r.value + m
    return None if gap <= 0 else max(n + 1, math.ceil(_needed(n, r.error, gap, z)))


def _needed(n: int, error: float, gap: float, z: float = Z) -> float:
    return n * ((z + POWER) * error / gap) ** 2
