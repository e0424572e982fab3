"""AUROC: how well a number predicts an event, for example late KPE the copies, with DeLong's interval.

    A = P(score of an event > score of a non-event) + P(equal) / 2

Variances and covariances come from the placements of each event among the non-events and the other way round (DeLong, DeLong and
Clarke-Pearson 1988), from mid-ranks in O(n log n) (Sun and Xu 2014).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from fm_lightning.diagnosis.association.statistic import Statistic, Vector, undefined, vectors
from fm_lightning.estimate import Estimate, Z


def auroc(score: Any, event: Any) -> Statistic:
    """AUROC of ``score [n]`` for ``event [n]`` bool; above 1/2, a high score goes with the event.

    The interval is taken on the logit scale, so that it stays inside (0, 1); p tests ``A = 1/2``. Undefined without events or
    non-events. Where the score separates both perfectly, DeLong's variance is 0 and no interval is given.

    Raises:
        UserError: counts that differ, or a value that is not finite.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value
        0.75
    """
    score, event = vectors(score=score, event=event)
    method = "AUROC, DeLong's variance, logit interval"
    why = _one_sided(event)
    if why:
        return undefined(why, len(score), method)
    area, of_events, of_others = placements(score, event > 0)
    if min(len(of_events), len(of_others)) < 2:
        return Statistic(area, n=len(score), method=method, reason="no interval from one event or one non-event")
    variance = of_events.var(ddof=1) / len(of_events) + of_others.var(ddof=1) / len(of_others)
    if variance == 0:
        reason = "no interval: all ties" if area == 0.5 else "no interval: a perfect separation"
        return Statistic(area, n=len(score), method=method, reason=reason)
    se = math.sqrt(variance)
    centre, half = math.log(area / (1 - area)), Z * se / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-v)) for v in (centre - half, centre + half))
    return Statistic(area, low, high, float(2 * norm.sf(abs(area - 0.5) / se)), len(score), method)


def auroc_difference(score: Any, other: Any, event: Any) -> Statistic:
    """AUROC of ``score`` minus that of ``other`` for the same samples ``[n]``, with DeLong's paired interval and p."""
    score, other, event = vectors(score=score, other=other, event=event)
    method = "difference of AUROCs, DeLong's paired variance"
    why = _one_sided(event)
    if why:
        return undefined(why, len(score), method)
    a, a_events, a_others = placements(score, event > 0)
    b, b_events, b_others = placements(other, event > 0)
    if min(len(a_events), len(a_others)) < 2:
        return Statistic(a - b, n=len(score), method=method, reason="no interval from one event or one non-event")
    of_events, of_others = a_events - b_events, a_others - b_others
    se = math.sqrt(of_events.var(ddof=1) / len(of_events) + of_others.var(ddof=1) / len(of_others))
    if se == 0:
        return Statistic(a - b, n=len(score), method=method, reason="no interval: both scores order the samples alike")
    value, low, high = Estimate(a - b, se)
    return Statistic(value, low, high, float(2 * norm.sf(abs(a - b) / se)), len(score), method)


def placements(score: Vector, event: np.ndarray) -> tuple[float, Vector, Vector]:
    """The area, each event's share of non-events below it ``[n1]``, and each non-event's share of events above it ``[n0]``."""
    events, others = score[event], score[~event]
    together = rankdata(np.concatenate([events, others]))
    of_events = (together[: len(events)] - rankdata(events)) / len(others)
    of_others = 1 - (together[len(events) :] - rankdata(others)) / len(events)
    return float(of_events.mean()), of_events, of_others


def _one_sided(event: Vector) -> str:
    hits = int((event > 0).sum())
    if 0 < hits < len(event):
        return ""
    return f"{hits} events among {len(event)} samples: nothing to tell apart"
