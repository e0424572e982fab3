"""Groups by the quantiles of one measurement, and how another differs between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, t, ttest_ind

from fm_lightning.diagnosis.association.statistic import Statistic, undefined, vectors
from fm_lightning.errors import UserError
from fm_lightning.estimate import LEVEL, Estimate


def quantile_groups(values: Any, count: int, strata: Any | None = None) -> NDArray[np.int64]:
    """``[n]`` group 0 ... count - 1 of each sample: thirds, quintiles, ... of ``values``, ascending.

    With strata (classes) a sample's quantile is that within its own stratum, so that all groups hold the strata in equal
    shares and a difference between groups is none between classes. Equal values are split in the order of the samples.

    Args:
        values: ``[n]``.
        count: number of groups, at least 2.
        strata: ``[n]`` labels.

    Raises:
        UserError: counts that differ, fewer samples than groups, or fewer different values than groups: energies that are all
            alike have no thirds.
    """
    if count < 2:
        raise UserError(f"`count={count}` makes no groups.", "Use at least 2.")
    if strata is None:
        (values,) = vectors(values=values)
        labels = np.zeros(len(values))
    else:
        values, labels = vectors(values=values, strata=strata)
    if len(values) < count:
        raise UserError(f"{len(values)} samples cannot fill {count} groups.", "Use fewer groups or more seeds.")
    different = len(np.unique(values))
    if different < count:
        raise UserError(f"{different} different values cannot fill {count} groups.", "Use fewer groups.")
    groups = np.empty(len(values), dtype=np.int64)
    for label in np.unique(labels):
        here = labels == label
        place = rankdata(values[here], method="ordinal") - 0.5
        groups[here] = np.floor(count * place / here.sum())
    empty = np.flatnonzero(np.bincount(groups, minlength=count) == 0)
    if len(empty):
        raise UserError(
            f"The strata are too small for {count} groups: group {empty[0]} stays empty.",
            "Use more seeds, or no strata.",
        )
    return groups


def group_means(groups: Any, values: Any) -> list[Statistic]:
    """Mean of ``values [n]`` with Student's interval in each of the groups 0 ... max, which must not be empty."""
    group, values = vectors(groups=groups, values=values)
    found = []
    for g in range(int(group.max()) + 1):
        part, method = values[group == g], "mean, Student's interval"
        if not len(part):
            raise UserError(f"Group {g} has no samples.", "Use fewer groups.")
        mean, low, high = float(part.mean()), None, None
        if len(part) > 1:
            half = float(t.ppf((1 + LEVEL) / 2, len(part) - 1)) * part.std(ddof=1) / math.sqrt(len(part))
            low, high = float(mean - half), float(mean + half)
        reason = "" if len(part) > 1 else "no interval from one sample"
        found.append(Statistic(mean, low, high, None, len(part), method, reason))
    return found


def trend(groups: Any, values: Any) -> Statistic:
    """Whether ``values [n]`` rise or fall over ordered groups ``[n]``: Kendall's tau-b of value and group.

    Its p (two-sided, corrected for ties) is that of the Jonckheere-Terpstra test, whose statistic J is a linear function of
    Kendall's S for given group sizes: ``S = 2 J - (n^2 - sum n_g^2) / 2``. The normal approximation wants some ten samples.

    Raises:
        UserError: counts that differ, or one group only.
    """
    group, values = vectors(groups=groups, values=values)
    method = "Jonckheere-Terpstra test (as Kendall's tau-b)"
    if len(np.unique(group)) < 2:
        raise UserError(f"{len(np.unique(group))} group has no trend.", "Use at least 2.")
    if (values == values[0]).all():
        return undefined("constant values: no trend to test", len(values), method)
    found = kendalltau(group, values, method="asymptotic")
    return Statistic(float(found.statistic), p=float(found.pvalue), n=len(values), method=method)


def mean_difference(low: Any, high: Any) -> Statistic:
    """Mean of ``high [m]`` minus mean of ``low [n]`` with Welch's 95% interval and p."""
    low, high = vectors(low=low)[0], vectors(high=high)[0]
    n, method = len(low) + len(high), "difference of means, Welch's interval"
    value = float(high.mean() - low.mean())
    if min(len(low), len(high)) < 2:
        return Statistic(value, n=n, method=method, reason="no interval from one sample")
    if low.std() == high.std() == 0:
        return Statistic(value, n=n, method=method, reason="no interval: constant values in both groups")
    found = ttest_ind(high, low, equal_var=False)
    interval = found.confidence_interval(LEVEL)
    return Statistic(value, float(interval.low), float(interval.high), float(found.pvalue), n, method)


def effect_size(low: Any, high: Any) -> Statistic:
    """Hedges's g: the difference of means, high minus low, in pooled standard deviations, corrected for small samples.

    ``g = J (mean_h - mean_l) / s`` with ``J = 1 - 3 / (4 (n + m) - 9)`` and ``se^2 = (n + m) / (n m) + g^2 / (2 (n + m))``
    (Hedges and Olkin 1985). Undefined where both groups are constant.

    Args:
        low, high: ``[n]`` and ``[m]``, for example CLIP margins in the low and the high third of KPE.
    """
    low, high = vectors(low=low)[0], vectors(high=high)[0]
    n, m = len(low), len(high)
    method = "Hedges's g, large-sample interval"
    if n + m < 4 or min(n, m) < 2:
        return undefined(f"{n} and {m} samples: an effect size needs two in each group", n + m, method)
    pooled = math.sqrt(((n - 1) * low.var(ddof=1) + (m - 1) * high.var(ddof=1)) / (n + m - 2))
    if pooled <= 1e-12 * max(abs(low.mean()), abs(high.mean())):
        return undefined("constant values in both groups: no standard deviation to measure in", n + m, method)
    g = float((1 - 3 / (4 * (n + m) - 9)) * (high.mean() - low.mean()) / pooled)
    g, low, high = Estimate(g, math.sqrt((n + m) / (n * m) + g**2 / (2 * (n + m))))
    return Statistic(g, low, high, None, n + m, method)
