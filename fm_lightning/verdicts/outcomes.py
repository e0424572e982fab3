"""Outcomes: what a judgement leaves, and the corrections for judging several at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fm_lightning.verdicts.margins import Margin
from fm_lightning.verdicts.residual import LEVEL, Estimate, Measure

Outcome = Literal["better", "explained", "undecided", "out of reach"]
Refusal = Literal[
    "few copies",  # of the schedule or of base
    "few others",  # samples that are no copies
    "no distance",  # no distance to real data was measured
    "few for Fréchet",  # fewer seeds than it judges from, and no kernel distance
    "no margin",  # base's distance is not above 0, and there are no held-out data
    "lowering open",  # memorization measured is not lower than base's, which might be chance
    "no family",
]


@dataclass(frozen=True)
class FamilyVerdict:
    """A schedule against one family.

    Attributes:
        family: its name.
        outcome: see ``judgement``.
        residual: r with its error, in the distance's unit; None where the schedule's M lies outside the three points'.
        slope: P'(M_S), distance per memorized share.
        margin: m, in the distance's unit.
        n_needed: seeds that would decide with a power of 80 %; only where undecided.
        by_dose: explained by one of the family's doses being as good in both, not by its curve.
        missed: its three points, chosen on calibration seeds, do not enclose the schedule's memorized share.
        disagrees: it would be better, but is significantly worse by the other distance.
        other: the residual in the other distance, where there is one.
        p_better, p_explained: one-sided.
    """

    family: str
    outcome: Outcome
    residual: Estimate | None = None
    slope: float = 0.0
    margin: float = 0.0
    n_needed: int | None = None
    by_dose: bool = False
    missed: bool = False
    disagrees: bool = False
    other: Estimate | None = None
    p_better: float = 1.0
    p_explained: float = 1.0

    @property
    def fewer_copies(self) -> float | None:
        """The residual as a share of samples at equal distance, ``r / |P'|``, below 0 where the schedule has fewer copies.

        None where the curve has no price in distance for fewer copies, so that there is no such rate of exchange.
        """
        return self.residual.value / -self.slope if self.residual is not None and self.slope < 0 else None


@dataclass(frozen=True)
class Verdict:
    """What may be said about one schedule.

    Attributes:
        schedule: its name.
        n: test seeds.
        memorized, base_memorized: M_S and M_base.
        lowered: ``M_base - M_S``.
        margin: dM and dQ; dQ is NaN without a distance.
        measure: the distance that judges; None where none can.
        quality, base_quality: Q_S and Q_base in that distance, and ``quality_change = Q_S - Q_base``.
        other_change: the same change in the other distance, where there is one.
        families: one verdict for each family that could lower memorization.
        refused: why nothing can be claimed; None where something can. Then ``n_needed`` seeds would mend it, if known.
        not_lowered: the upper bound of ``lowered`` is below dM: there is nothing to explain.
        confirmed: being better than all families stands the correction for the schedules judged together.
    """

    schedule: str
    n: int
    memorized: float
    base_memorized: float
    lowered: Estimate
    margin: Margin
    measure: Measure | None = None
    quality: float = math.nan
    base_quality: float = math.nan
    quality_change: Estimate | None = None
    other_change: Estimate | None = None
    families: tuple[FamilyVerdict, ...] = ()
    refused: Refusal | None = None
    n_needed: int | None = None
    not_lowered: bool = False
    confirmed: bool = True

    @property
    def outcome(self) -> Literal["no claim", "not lowered", "better", "explained", "undecided", "out of reach"]:
        """ "not lowered": the gate is closed, there is nothing to explain. Else what its families' outcomes add up to."""
        if self.refused:
            return "no claim"
        if self.not_lowered:
            return "not lowered"
        found = {verdict.outcome for verdict in self.families}
        if "explained" in found:
            return "explained"
        if any(verdict.disagrees for verdict in self.families):
            return "no claim"
        if "undecided" in found:
            return "undecided"
        if "better" in found:
            return "better" if self.confirmed else "undecided"
        return "out of reach"

    @property
    def p_better(self) -> float:
        """p of being better than every family that reaches the schedule: the largest of theirs."""
        return max((v.p_better for v in self.families if v.outcome != "out of reach"), default=1.0)


def confirm(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Holm's correction for several schedules judged together, on the largest p of each."""
    judged = [i for i, v in enumerate(verdicts) if v.families and v.outcome != "out of reach"]
    adjusted = dict(zip(judged, holm([verdicts[i].p_better for i in judged])))
    return [replace(v, confirmed=adjusted.get(i, 0.0) < LEVEL) for i, v in enumerate(verdicts)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
