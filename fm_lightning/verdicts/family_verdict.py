"""A schedule against one family, as a claim about just these real images.

With the residual r of the schedule to the family's curve, its error se (``residual``), z = 1.96, and the smallest effect that
matters, ``m = dQ + |P'(M_S)| dM``:

    worse         r - z se > 0 and r > m, and by the other distance not significantly better
    no better     a dose of the family is as good in both: its paired upper bounds in M and Q lie within dM and dQ of the
                  schedule's, corrected for three doses. Or r - z se > -m: an advantage beyond the margin is excluded
    better        r + z se < 0 and r < -m, and by the other distance not significantly worse
    undecided     otherwise, with the seeds it would take
    out of reach  the family does not reach the schedule's memorized share in its dose range. Where its three points miss it
                  though it does, as calibration is not exact, it is undecided: what was missed cannot be beaten

in this order. "Worse" and "no better" are corrected by Holm over the families; a "worse" that does not stand is "no better".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from fm_lightning.estimate import Estimate, Z, share_change
from fm_lightning.verdicts.margins import Margin
from fm_lightning.verdicts.outcomes import MANY, FamilyOutcome, FamilyVerdict, holm
from fm_lightning.verdicts.residual import LEVEL, Distance, Observed, relative, residual

POWER = 0.84  # normal quantile of the power of 80% that n_needed aims at


@dataclass(frozen=True)
class Contest:
    """A schedule that is compared with families.

    Attributes:
        row, base: what was measured of the schedule and of the baseline.
        distance: the one that judges.
        other: the distance that must not contradict it, if there is one.
        margin: the smallest effects that matter.
    """

    row: Observed
    base: Observed
    distance: Distance
    other: Distance | None
    margin: Margin

    def verdicts(
        self, families: Mapping[str, Sequence[Sequence[Observed]]], discrete: Mapping[str, float]
    ) -> tuple[FamilyVerdict, ...]:
        """The verdicts against all families, see ``verdict``."""
        found = [self._against(name, places, discrete.get(name)) for name, places in families.items()]
        return tuple(_corrected(found, len(self.row.hits)))

    def _against(self, family: str, places: Sequence[Sequence[Observed]], discrete: float | None) -> FamilyVerdict:
        """The verdict over all places where the family's curve reaches the schedule: it has to win at each of them."""
        if not places:
            return FamilyVerdict(family, "out of reach")
        found = [self._at_place(family, points, discrete) for points in places]
        p_worse, p_no_better = (
            min(1.0, len(found) * min(getattr(v, name) for v in found)) for name in ("p_worse", "p_no_better")
        )
        for outcome in ("worse", "no better"):
            if reached := [v for v in found if v.outcome == outcome]:
                best = min(reached, key=lambda v: v.p_worse if outcome == "worse" else v.p_no_better)
                return replace(best, p_worse=p_worse, p_no_better=p_no_better)
        undecided = [v for v in found if v.outcome == "undecided"]
        return max(undecided or found, key=lambda v: v.p_better)

    def _at_place(self, family: str, points: Sequence[Observed], discrete: float | None) -> FamilyVerdict:
        row, base, distance, other, margin = self.row, self.base, self.distance, self.other, self.margin
        # Not by the baseline: that the schedule lowers memorization is known by now.
        dominated = min(1.0, len(points) * min(_p_dominated(row, dose, distance, margin) for dose in points))
        found = residual(row, points, distance, discrete)
        if found is None:
            outcome: FamilyOutcome = "no better" if dominated < LEVEL else "undecided"
            by_dose = outcome == "no better"
            return FamilyVerdict(family, outcome, by_dose=by_dose, missed=not by_dose, p_no_better=dominated)
        r, m = found.estimate.conditional, margin.at(found.slope)
        second = residual(row, points, other, discrete) if other else None
        contrary = second.estimate.conditional if second is not None else None
        opposite = contrary.sign if contrary is not None else 0
        result = FamilyVerdict(
            family,
            "undecided",
            r,
            relative(found.estimate, base.quality(distance)),
            found.slope,
            m,
            _fewer_copies(r.value, found.slope, row, base, points),
            other=contrary,
            other_relative=relative(second.estimate, base.quality(other)) if second and other else None,
            p_better=r.p_below(0.0),
            p_worse=r.p_above(0.0) if r.value > m and opposite >= 0 else 1.0,
            p_no_better=min(dominated, r.p_above(-m)),
        )
        if result.p_worse < LEVEL:
            return replace(result, outcome="worse")
        if r.low > -m:
            return replace(result, outcome="no better")
        if dominated < LEVEL:
            return replace(result, outcome="no better", by_dose=True)
        if r.high < 0 and r.value < -m:
            return replace(result, disagrees=True) if opposite > 0 else replace(result, outcome="better")
        return replace(result, n_needed=_decides(r, m, len(row.hits)))


def seeds_needed(n: int, estimate: Estimate, gap: float, z: float = Z) -> int | None:
    """Seeds at which a gap of that size would be decided with a power of 80%; None if more than ``MANY`` times n."""
    wanted = (gap / (z + POWER)) ** 2 - estimate.extra**2  # which more seeds do not lower
    if gap <= 0 or wanted <= 0:
        return None
    needed = n * (estimate.error**2 - estimate.extra**2) / wanted
    return max(n + 1, math.ceil(needed)) if needed <= MANY * n else None


def _fewer_copies(r: float, slope: float, row: Observed, base: Observed, points: Sequence[Observed]) -> float | None:
    if slope >= 0:  # fewer copies cost nothing there, so that there is no rate of exchange
        return None
    change = r / -slope
    known = [point.memorized for point in points] + [base.memorized]
    return change if min(known) <= row.memorized - change <= max(known) else None


def _p_dominated(row: Observed, dose: Observed, distance: Distance, margin: Margin) -> float:
    """p of the test that the dose is within the margin of the schedule, or better, in both."""
    return max(
        share_change(dose.hits, row.hits).p_below(margin.memorized),
        (dose.quality(distance) - row.quality(distance)).conditional.p_below(margin.quality),
    )


def _corrected(verdicts: Sequence[FamilyVerdict], n: int) -> list[FamilyVerdict]:
    """Holm over the families: "worse" becomes "no better", and that "undecided", where they hold only uncorrected."""
    reached = [i for i, v in enumerate(verdicts) if v.outcome != "out of reach"]
    worse = dict(zip(reached, holm([verdicts[i].p_worse for i in reached])))
    no_better = dict(zip(reached, holm([verdicts[i].p_no_better for i in reached])))
    out = []
    for i, v in enumerate(verdicts):
        if v.outcome == "worse" and worse[i] >= LEVEL:
            v = replace(v, outcome="no better")
        if v.outcome == "no better" and no_better[i] >= LEVEL:
            strict = NormalDist().inv_cdf(1 - LEVEL / len(reached))
            needed = _decides(v.residual, v.margin, n, strict) if v.residual is not None else None
            v = replace(v, outcome="undecided", by_dose=False, missed=v.residual is None, n_needed=needed)
        out.append(v)
    return out


def _decides(r: Estimate, m: float, n: int, z: float = Z) -> int | None:
    """Seeds at which a residual like this one would be decided, as better or as no better."""
    return seeds_needed(n, r, -r.value if r.value < -m else r.value + m, z)
