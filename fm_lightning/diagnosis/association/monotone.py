"""A share over ordered groups, and whether it is monotone: the Goldilocks curve of F_mem over quantiles of KPE.

Null hypothesis: the shares never fall, or never rise. For either order the likelihood ratio compares the shares as they are with
their isotonic regression (pool adjacent violators),

    L = 2 sum_g n_g [s_g log(s_g / m_g) + (1 - s_g) log((1 - s_g) / (1 - m_g))]

whose distribution is largest where all true shares are equal (Robertson, Wright and Dykstra 1988, section 2.3); it is simulated
there, with the pooled share and the groups' own sizes. The curve is called non-monotone only if both orders are refuted,
hence ``p`` is the larger of the two (intersection-union test): its size is at most its level, and below it where the curve
is flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fm_lightning.diagnosis.association.groups import quantile_groups
from fm_lightning.diagnosis.association.statistic import Statistic, Vector, undefined, vectors
from fm_lightning.errors import UserError
from fm_lightning.estimate import wilson


@dataclass(frozen=True)
class ShareCurve:
    """The share of hits in each of G groups, with Wilson's 95% interval.

    Attributes:
        middle: ``[G]`` median of the measurement in each group.
        share, low, high: ``[G]``.
        hits, n: ``[G]`` counts.
    """

    middle: Vector
    share: Vector
    low: Vector
    high: Vector
    hits: Vector
    n: Vector


def share_curve(values: Any, hits: Any, count: int) -> ShareCurve:
    """The share of ``hits [n]`` bool over ``count`` quantile groups of ``values [n]``, see ``quantile_groups``."""
    numbers, events = vectors(values=values, hits=hits)
    groups = quantile_groups(values, count)
    n = np.bincount(groups, minlength=count)
    hit = np.bincount(groups, weights=events > 0, minlength=count).astype(np.float64)
    low, high = np.array([wilson(int(k), int(m)) for k, m in zip(hit, n)]).T
    middle = np.array([np.median(numbers[groups == g]) for g in range(count)])
    return ShareCurve(middle, hit / n, low, high, hit, n.astype(np.float64))


def non_monotonicity(hits: Any, n: Any, simulations: int = 4000, seed: int = 0) -> Statistic:
    """Tests whether shares ``hits / n`` over ordered groups ``[G]`` are neither rising nor falling, see the module's docstring.

    Args:
        hits, n: ``[G]`` counts, at least three groups.
        simulations: draws of the null distribution; p is resolved to 1 / (simulations + 1).
        seed: of the draws.

    Returns:
        value: the smaller of the two likelihood ratios; p: see above. Undefined where no or all samples are hits.

    Raises:
        UserError: fewer than three groups, an empty one, or more hits than samples.
    """
    hits, n = vectors(hits=hits, n=n)
    if len(n) < 3:
        raise UserError(f"{len(n)} groups are always monotone.", "Use at least 3.")
    if (n < 1).any() or (hits < 0).any() or (hits > n).any():
        raise UserError("A group has no samples, or more hits than samples.", "Check hits and n.")
    total, method = int(n.sum()), "isotonic likelihood-ratio test in both orders, null simulated at equal shares"
    if hits.sum() in (0, n.sum()):
        return undefined(f"{int(hits.sum())} hits of {total} samples: every group is alike", total, method)
    rng = np.random.default_rng(seed)
    null = rng.binomial(n.astype(np.int64), hits.sum() / n.sum(), size=(simulations, len(n)))
    found, draws = _ratios(hits[None], n), _ratios(null, n)
    p = (1 + (draws >= found - 1e-9).sum(1)) / (simulations + 1)  # [2]
    return Statistic(float(found.min()), p=float(p.max()), n=total, method=method)


def _ratios(hits: np.ndarray, n: Vector) -> np.ndarray:
    """``[2, R]`` likelihood ratios against a rising and against a falling curve, for counts ``[R, G]``."""
    return np.stack([_against_rising(hits, n), _against_rising(hits[:, ::-1], n[::-1])])


def _against_rising(hits: np.ndarray, n: Vector) -> Vector:
    share, fitted = hits / n, isotonic(hits, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(share > 0, share * np.log(share / fitted), 0.0)
        loss = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - fitted)), 0.0)
    return 2 * ((gain + loss) * n).sum(1)


def isotonic(hits: np.ndarray, n: Vector) -> np.ndarray:
    """Isotonic regressions ``[R, G]`` of ``hits / n``, sizes ``[G]``: at g, ``max_{a <= g} min_{b >= g} mean(a ... b)``."""
    above = np.concatenate([np.zeros((len(hits), 1)), hits.cumsum(1)], 1)
    below = np.concatenate([[0.0], n.cumsum()])
    count = len(n)
    fitted = np.zeros(hits.shape)
    for a in range(count):
        means = (above[:, a + 1 :] - above[:, a : a + 1]) / (below[a + 1 :] - below[a])  # [R, count - a], b = a ...
        smallest = np.minimum.accumulate(means[:, ::-1], 1)[:, ::-1]
        fitted[:, a:] = np.maximum(fitted[:, a:], smallest)
    return fitted
