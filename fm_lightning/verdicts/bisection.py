"""Calibration by bisection, where doses merely exist and each is costly, such as a whole network per checkpoint.

Of the doses that exist, those at both ends are sampled first, then the middle of the bracket in which the family's memorized
share passes the schedule's, until its ends are neighbours; last their nearest neighbour, the third point of the curve. Twelve
checkpoints take five or six samplings, and rows are shared between schedules.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence


def next_dose(memorized: Mapping[float, float], target: float, existing: Sequence[float]) -> float | None:
    """The dose to sample next; None when three doses about the target are known, or none can be.

    Args:
        memorized: dose -> memorized share of the doses sampled so far; 0 (the baseline) among them.
        target: the schedule's memorized share.
        existing: the doses that exist, ascending from 0.
    """
    if existing[-1] not in memorized:
        return existing[-1]
    low, high = _bracket(memorized, target, existing)
    if low == high:
        return None  # the family does not reach the target
    if high - low > 1:
        return existing[(low + high) // 2]
    third = _third(memorized, target, existing, low, high)
    return existing[third] if third is not None and existing[third] not in memorized else None


def three_doses(
    memorized: Mapping[float, float], target: float, existing: Sequence[float]
) -> tuple[float, float, float] | None:
    """The three ascending doses that ``next_dose`` has led to; None where the family does not reach the target."""
    if existing[-1] not in memorized:
        return None
    low, high = _bracket(memorized, target, existing)
    third = _third(memorized, target, existing, low, high) if high - low == 1 else None
    if third is None or existing[third] not in memorized:
        return None
    first, second, last = sorted((low, high, third))
    return existing[first], existing[second], existing[last]


def _bracket(memorized: Mapping[float, float], target: float, existing: Sequence[float]) -> tuple[int, int]:
    """Places of the nearest sampled doses between which M passes the target; equal ones where it does not."""
    known = [i for i, dose in enumerate(existing) if dose in memorized]
    pairs = [
        (a, b)
        for a, b in itertools.pairwise(known)
        if min(memorized[existing[a]], memorized[existing[b]])
        <= target
        <= max(memorized[existing[a]], memorized[existing[b]])
    ]
    return pairs[0] if pairs else (0, 0)


def _third(
    memorized: Mapping[float, float], target: float, existing: Sequence[float], low: int, high: int
) -> int | None:
    """The neighbour of the bracket on the side that the target is closer to."""
    sides = [low - 1, high + 1]
    if abs(memorized[existing[high]] - target) < abs(memorized[existing[low]] - target):
        sides.reverse()
    return next((side for side in sides if 0 <= side < len(existing)), None)
