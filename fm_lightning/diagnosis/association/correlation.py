"""Rank correlation, plain and with covariates held fixed, with bootstrap intervals.

Intervals are percentiles over resamples of the samples, so they hold where the spread of one measurement depends on the other;
formulas with Fisher's transform cover 85% there. ``resampled`` draws how often each sample comes up, which makes a thousand
resamples a few products of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from scipy.stats import norm, rankdata, t

from fm_lightning.diagnosis.association.statistic import Statistic, Vector, constant, undefined, vectors

RESAMPLES = 1000
LEAST = 10  # samples beyond covariates, for an interval
PER_NUMBER = 8  # samples for each number of a curve: of the class for its own curve, of all classes for the common one
MOST = 7  # numbers of a curve through few samples
Matrix = np.ndarray


def spearman(x: Any, y: Any) -> Statistic:
    """Spearman's rho of two measurements ``[n]`` each of the same samples; p tests independence (Student's t).

    Undefined, with the reason, where one of them is constant or n < 3; no interval below 10 samples.

    Raises:
        UserError: counts that differ, or a value that is not finite.

    Example:
        >>> spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).value
        0.9
    """
    x, y = vectors(x=x, y=y)
    n, method = len(x), f"Spearman's rho, percentiles of {RESAMPLES:,} resamples"
    why = constant(x=x, y=y)
    if why:
        return undefined(f"{why}: a correlation needs variation", n, method)
    return _estimate(rankdata(x), rankdata(y), 0, method, ranked=True)


def partial_spearman(
    x: Any, y: Any, covariates: Mapping[str, Any] | None = None, strata: Any | None = None
) -> Statistic:
    """Spearman's rho of x and y with covariates held fixed: Pearson's correlation of what is left of their ranks.

    x and y are ranked within each class, so that differences between classes of any form are removed. From these ranks
    is removed a sum of cubic splines in the covariates' ranks: for each covariate one that all classes share, and one for each
    class, each with 7 numbers (up to the cube root of large samples; fewer in small ones, none of their own in small classes).
    Where x and y are independent given covariates and class, the correlation is 0 up to what such a sum cannot follow, such as
    products of two covariates.

    Args:
        x, y: ``[n]`` each.
        covariates: name -> ``[n]``, for example the norm of the initial noise.
        strata: ``[n]`` labels, for example the class.

    Raises:
        UserError: counts that differ, or a value that is not finite.
    """
    given = {"x": x, "y": y, **(covariates or {})} | ({} if strata is None else {"strata": strata})
    columns = dict(zip(given, vectors(**given)))
    x, y = columns.pop("x"), columns.pop("y")
    n = len(x)
    labels = columns.pop("strata") if strata is not None else np.zeros(n)
    names = ", ".join([*columns, *(["class"] if strata is not None else [])])
    where = " within classes" if strata is not None else ""
    method = f"partial Spearman's rho given {names or 'nothing'}, splines in ranks{where}, percentiles of {RESAMPLES:,} resamples"
    why = constant(x=x, y=y)
    if why:
        return undefined(f"{why}: a correlation needs variation", n, method)
    classes = [labels == label for label in np.unique(labels)]
    left, held = _residuals(
        np.column_stack([_ranks_within(classes, z) for z in (x, y)]), list(columns.values()), classes
    )
    if (left.std(0) <= 1e-9).any():
        return undefined(f"{names} leave nothing of x or y to correlate", n, method)
    return _estimate(left[:, 0], left[:, 1], held, method)


def _ranks_within(classes: list[np.ndarray], z: Vector) -> Vector:
    """Ranks ``[n]`` of z within each class ``[n]`` bool, in (0, 1)."""
    found = np.empty(len(z))
    for here in classes:
        found[here] = (rankdata(z[here]) - 0.5) / here.sum()
    return found


def _residuals(ranks: Matrix, covariates: list[Vector], classes: list[np.ndarray]) -> tuple[Matrix, int]:
    """What curves leave of ``ranks [n, 2]``, and how many numbers were fitted besides the mean."""
    n, count, held = len(ranks), max(1, len(covariates)), -1
    # The common curves take ranks among all samples: a rank within a class of ten says little about a value.
    common = [_curve((rankdata(z) - 0.5) / n, max(1, _size(n // count))) for z in covariates]
    both = np.column_stack([ranks, *common])
    scale = float(np.linalg.norm(both))
    for here in classes:  # one after the other: a design of a thousand classes has too many columns
        m = int(here.sum())
        size = _size(m // count) if len(classes) > 1 else 0
        own = [_curve((rankdata(z[here]) - 0.5) / m, size) for z in covariates]
        held += _remove(both, here, np.column_stack([np.ones(m), *own]), scale)
    left, common_left = both[:, :2].copy(), both[:, 2:]
    held += _remove(left, np.ones(n, bool), common_left, scale)
    return left, held


def _remove(values: Matrix, rows: np.ndarray, design: Matrix, scale: float) -> int:
    """Replaces rows of ``values`` by their residuals from the columns of ``design``; returns the rank of the design."""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    u = u[:, s > scale * 1e-10]
    values[rows] -= u @ (u.T @ values[rows])
    return u.shape[1]


def _size(n: int) -> int:
    """How many numbers a curve through n samples may have: more samples show finer curves."""
    return min(max(MOST, round(n ** (1 / 3))), n // PER_NUMBER)


def _curve(u: Vector, size: int) -> Matrix:
    """``[n, size]`` functions of ``u [n]`` in (0, 1): a cubic spline without its constant; fewer than 3 are powers."""
    if size < 3:
        return u[:, None] ** np.arange(1, size + 1)
    inner = np.linspace(0, 1, size - 1)[1:-1]
    knots = np.r_[[0.0] * 4, inner, [1.0] * 4]
    return BSpline.design_matrix(u, knots, 3).toarray()[:, 1:]  # all of them add up to 1


def _estimate(x: Vector, y: Vector, held: int, method: str, ranked: bool = False) -> Statistic:
    """Pearson's correlation of two vectors from which ``held`` numbers were fitted; ``ranked`` ranks each resample."""
    n = len(x)
    free = n - 2 - held
    if free < 1:
        return undefined(f"{n} samples with {held} covariates: a correlation needs 3 more than covariates", n, method)
    x, y = x - x.mean(), y - y.mean()
    rho = float(np.clip(x @ y / math.sqrt(float(x @ x) * float(y @ y)), -1, 1))
    if abs(rho) > 1 - 1e-12:
        return Statistic(math.copysign(1.0, rho), p=0.0, n=n, method=method, reason="no interval at |rho| = 1")
    p = float(2 * t.sf(abs(rho) * math.sqrt(free / (1 - rho**2)), free))
    if free < LEAST - 2:
        return Statistic(rho, p=p, n=n, method=method, reason=f"no interval from {n} samples with {held} covariates")
    drawn = resampled(x, y, ranked)
    wider = math.sqrt(n / (n - held))  # what was fitted makes residuals too small
    low, high = (rho + wider * (bound - rho) for bound in np.nanquantile(drawn, [0.025, 0.975]))
    low, high = min(low, rho), max(high, rho)  # resamples without a rare value are undefined, and shift the others
    if held:  # Student's p takes the spread of one as independent of the other
        p = float(2 * norm.sf(abs(rho) / (wider * float(np.nanstd(drawn)))))
    return Statistic(rho, float(max(low, -1)), float(min(high, 1)), p, n, method)


def resampled(x: Vector, y: Vector, ranked: bool = False, resamples: int = RESAMPLES, seed: int = 0) -> Vector:
    """``[resamples]`` Pearson correlations of x and y, or of their ranks, over resamples of the n samples."""
    n, drawn = len(x), _counts(len(x), resamples, seed)
    codes = [np.unique(z, return_inverse=True)[1] for z in (x, y)] if ranked else []
    found = []
    for start in range(0, resamples, _block(n)):
        many = drawn[start : start + _block(n)].astype(np.int64)  # [R, n]
        a, b = (_ranks(many, code) for code in codes) if ranked else (x[None], y[None])
        mean_a, mean_b = ((many * z).sum(1, keepdims=True) / n for z in (a, b))
        a, b = a - mean_a, b - mean_b
        with np.errstate(invalid="ignore"):
            found.append((many * a * b).sum(1) / np.sqrt((many * a * a).sum(1) * (many * b * b).sum(1)))
    return np.concatenate(found)


def _block(n: int) -> int:
    """Resamples of n samples that are computed together."""
    return max(1, 2_000_000 // n)


@lru_cache(maxsize=1)
def _counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """``[resamples, n]`` how often each of n samples comes up; kept, because many correlations of the same samples follow."""
    rng, found = np.random.default_rng(seed), np.empty((resamples, n), np.uint8)
    for start in range(0, resamples, _block(n)):
        part = found[start : start + _block(n)]
        part[:] = rng.multinomial(n, np.full(n, 1 / n), size=len(part))
    return found


def _ranks(many: Matrix, codes: np.ndarray) -> Matrix:
    """``[R, n]`` mid-ranks of values, whose order ``codes [n]`` tell, within resamples with counts ``many [R, n]``."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    counts = np.add.reduceat(many[:, order], starts, axis=1)
    return (counts.cumsum(1) - (counts - 1) / 2)[:, codes]
