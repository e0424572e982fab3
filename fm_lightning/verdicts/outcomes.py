"""Outcomes: what a verdict holds, against one family and as a whole, and the corrections for several at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from fm_lightning.estimate import Estimate
from fm_lightning.verdicts.margins import Margin
from fm_lightning.verdicts.residual import LEVEL, Distance

LEAST_COPIES = 20  # and at least 20 samples that are no copies
FRECHET_FROM = 10  # seeds per feature from which the Fréchet distance judges
SOME = 0.01  # share of the real images from which it matters that training saw them
MANY = 3  # beyond so many times the seeds used, the number needed is too uncertain to be named
FamilyOutcome = Literal["better", "no better", "worse", "undecided", "out of reach"]
SUPPORT: Mapping[FamilyOutcome, int] = {"better": 1, "undecided": 0, "no better": -1, "worse": -1}
Outcome = FamilyOutcome | Literal["not lowered", "no claim"]
# The order of a headline.
ORDER: tuple[Outcome, ...] = ("worse", "no better", "undecided", "better", "out of reach", "not lowered", "no claim")
Refusal = Literal[
    "nothing to lower",  # the baseline copies no more than held-out real data do
    "floor open",  # whether the baseline copies more than held-out real data do is open
    "few copies",  # of the baseline
    "few left",  # copies of the schedule, which lowers them
    "few others",  # samples that are no copies
    "no distance",  # no distance to real data was measured
    "few for Fréchet",  # fewer seeds than it judges from, and no kernel distance
    "no margin",  # the baseline's distance is not above 0, and there are no held-out data
    "lowering open",  # the schedule's memorized share is not below the baseline's, perhaps by chance
    "no family",
]


@dataclass(frozen=True)
class FamilyVerdict:
    """A schedule against one family.

    Attributes:
        family: its name.
        outcome: see ``verdicts.family_verdict``.
        residual: r with its error, in the distance's unit, to just these real images; None where the schedule's M lies
            outside the three points'.
        relative: r as a share of the baseline's distance; None where that distance is near 0. The error includes that of the
            baseline's distance and, where it is known, that of the real images.
        slope: P'(M_S), distance per memorized share.
        margin: m, in the distance's unit.
        fewer_copies: the residual as a share of samples at equal distance, ``r / |P'|``, below 0 where the schedule has
            fewer copies. None unless that lies within the doses' range of M: near a flat curve it has no bound.
        n_needed: seeds that would decide with a power of 80%; only where undecided, and None beyond 3 times those used,
            where the estimate is worth nothing.
        by_dose: no better than one of the family's doses, in both M and Q, not than its curve.
        missed: its three points, chosen on calibration seeds, do not enclose the schedule's memorized share.
        disagrees: it would be better, but is significantly worse by the other distance.
        other: the residual in the other distance, where there is one; ``other_relative`` as a share.
        p_better, p_worse, p_no_better: one-sided.
    """

    family: str
    outcome: FamilyOutcome
    residual: Estimate | None = None
    relative: Estimate | None = None
    slope: float = 0.0
    margin: float = 0.0
    fewer_copies: float | None = None
    n_needed: int | None = None
    by_dose: bool = False
    missed: bool = False
    disagrees: bool = False
    other: Estimate | None = None
    other_relative: Estimate | None = None
    p_better: float = 1.0
    p_worse: float = 1.0
    p_no_better: float = 1.0


@dataclass(frozen=True)
class Alternative:
    """The verdict on the same schedule by another definition of a copy, another distance or other features.

    Attributes:
        name: the definition, as a phrase: "at a threshold of 1/4".
        outcome: of the schedule as a whole.
        families: family -> outcome; "out of reach" also where its doses, which were chosen for the first definition, miss the
            schedule.
    """

    name: str
    outcome: Outcome
    families: Mapping[str, FamilyOutcome]

    @classmethod
    def of(cls, name: str, found: Findings) -> Alternative:
        """What was found by that definition."""
        return cls(name, found.outcome, {f.family: "out of reach" if f.missed else f.outcome for f in found.families})

    def reverses(self, found: Findings) -> dict[FamilyOutcome, list[FamilyVerdict]]:
        """Outcome -> the families whose outcome it reverses: better, and no longer so, or no better, and now better."""
        groups: dict[FamilyOutcome, list[FamilyVerdict]] = {}
        for family in found.families:
            here, there = SUPPORT.get(family.outcome, 0), SUPPORT.get(self.families.get(family.family, "out of reach"))
            if there is not None and (here * there < 0 or (here, there) == (1, 0)):
                groups.setdefault(self.families[family.family], []).append(family)
        return groups


@dataclass(frozen=True)
class Findings:
    """What was found about one schedule; ``verdict.Verdict`` adds the words.

    Attributes:
        schedule: its name.
        n: test seeds.
        memorized, base_memorized: M_S and M_base.
        lowered: ``M_base - M_S``.
        margin: dM and dQ; dQ is NaN without a distance.
        distance: the one that judges; None where none can.
        quality, base_quality: Q_S and Q_base in that distance, and ``quality_change = Q_S - Q_base`` to just these images.
        relative_change: the change as a share of Q_base, with the errors of ``FamilyVerdict.relative``.
        other_change: the change in the other distance, where there is one; ``other_relative`` as a share.
        held_out_memorized: the share of held-out real data that count as copies, where they were measured.
        families: one verdict for each family that could lower memorization.
        refused: why nothing can be claimed; None where something can. Then ``n_needed`` seeds would suffice, if known.
        not_lowered: the upper bound of ``lowered`` is below dM: there is nothing to explain.
        confirmed: being better than all families stands the correction for the schedules judged together.
        seen: the share of the real images that training saw; None where it is unknown.
        alternatives: the verdict by other definitions.
    """

    schedule: str
    n: int
    memorized: float
    base_memorized: float
    lowered: Estimate
    margin: Margin
    distance: Distance | None = None
    quality: float = math.nan
    base_quality: float = math.nan
    quality_change: Estimate | None = None
    relative_change: Estimate | None = None
    other_change: Estimate | None = None
    other_relative: Estimate | None = None
    held_out_memorized: float | None = None
    families: tuple[FamilyVerdict, ...] = ()
    refused: Refusal | None = None
    n_needed: int | None = None
    not_lowered: bool = False
    confirmed: bool = True
    seen: float | None = None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def rewards_copies(self) -> bool:
        """Whether training saw the real images of the distance, which copies then lower."""
        return self.distance is not None and (self.seen or 0.0) >= SOME

    @property
    def outcome(self) -> Outcome:
        """ "not lowered": there is nothing to explain. Else what its families' outcomes add up to."""
        if self.refused:
            return "no claim"
        if self.not_lowered:
            return "not lowered"
        found = {verdict.outcome for verdict in self.families}
        decided: Outcome
        for decided in ("worse", "no better"):
            if decided in found:
                return decided
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


F = TypeVar("F", bound=Findings)


def confirm(verdicts: Sequence[F]) -> list[F]:
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
