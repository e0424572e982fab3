"""The spread between replicates: the smallest effect that a claim over several training seeds is about.

If plain sampling's distance has the standard deviation s between replicates, as a share of its mean, another training seed
changes the distance by as much as an effect of that size. So dQ is at least ``s Q_base`` in every run, and the outcomes
against the families are those with the margin ``m + max(0, s Q_base - dQ)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fm_lightning.comparison.results import FamilyResult, VerdictResult
from fm_lightning.verdicts.random_effects import LEAST


def spread(entries: Sequence[VerdictResult]) -> float | None:
    """s, of one schedule's verdicts in replicates; None for fewer than three distances, of different kinds, or not above 0."""
    found = [entry.base_quality for entry in entries if entry.base_quality is not None and entry.base_quality > 0]
    if len(found) < LEAST or len({entry.measure for entry in entries}) > 1:
        return None
    return float(np.std(found, ddof=1) / np.mean(found))


def with_floor(entry: VerdictResult, share: float | None) -> VerdictResult:
    """The verdict with a dQ of at least that share of plain sampling's distance; the same where it is larger already."""
    least = (share or 0.0) * (entry.base_quality or 0.0)
    if entry.margin.quality is None or least <= entry.margin.quality:
        return entry
    families = tuple(_judged(family, least - entry.margin.quality) for family in entry.families)
    margin = replace(entry.margin, quality=least)
    return replace(entry, families=families, outcome=_outcome(entry, families), margin=margin)


def _judged(family: FamilyResult, more: float) -> FamilyResult:
    """The outcome against one family, with a margin that is larger by ``more``."""
    if family.residual is None or family.margin is None:
        return family
    margin, r = family.margin + more, family.residual
    outcome = family.outcome
    if outcome in ("better", "undecided") and r.low > -margin:
        outcome = "no better"
    elif outcome == "better" and r.value >= -margin:
        outcome = "undecided"
    elif outcome == "worse" and r.value <= margin:
        outcome = "no better"
    return replace(family, outcome=outcome, margin=margin)


def _outcome(entry: VerdictResult, families: Sequence[FamilyResult]) -> str:
    found = {family.outcome for family in families}
    for outcome in ("worse", "no better"):
        if outcome in found:
            return outcome
    return "undecided" if entry.outcome == "better" and "undecided" in found else entry.outcome
