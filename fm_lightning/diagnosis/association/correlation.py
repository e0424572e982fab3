"""Rank correlation, plain and given covariates, with intervals.

The 95 % interval is Fisher's, ``tanh(artanh(rho) +- 1.96 se)``, with the standard error that Bonett and Wright (2000) found for
Spearman's rho, ``se^2 = (1 + rho^2 / 2) / (n - 3 - q)``; q counts what is partialled out. ``bootstrap`` gives an interval that
assumes nothing about the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata, t

from fm_lightning.diagnosis.association.estimate import Estimate, Vector, Z, constant, undefined, vectors
from fm_lightning.errors import OldError

_FISHER = "Fisher's interval with Bonett and Wright's standard error"


def spearman(x: Any, y: Any) -> Estimate:
    """Spearman's rho of two measurements ``[n]`` each of the same samples; p tests independence (Student's t).

    Undefined, with the reason, where one of them is constant or n < 3; no interval below 5 samples.

    Raises:
        UserError: counts that differ, or a value that is not finite.

    Example:
        >>> spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).value
        0.9
    """
    x, y = vectors(x=x, y=y)
    method = f"Spearman's rho, {_FISHER}"
    why = constant(x=x, y=y)
    if why:
        return undefined(f"{why}: a correlation needs variation", len(x), method)
    return _estimate(rankdata(x), rankdata(y), len(x), 0, method)


def partial_spearman(
    x: Any, y: Any, covariates: Mapping[str, Any] | None = None, strata: Any | None = None
) -> Estimate:
    """Spearman's rho of x and y with covariates held fixed: Pearson's correlation of what is left of the ranks.

    Ranks of x and y are regressed by least squares on the ranks of the covariates and on one indicator for each stratum. With
    one covariate z this is ``(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))`` (Kendall 1942).

    Args:
        x, y: ``[n]`` each.
        covariates: name -> ``[n]``, e.g. the norm of the initial noise.
        strata: ``[n]`` labels, e.g. the class.

    Raises:
        UserError: counts that differ, or a value that is not finite.
    """
    given = {"x": x, "y": y, **(covariates or {})} | ({} if strata is None else {"strata": strata})
    columns = dict(zip(given, vectors(**given)))
    x, y = columns.pop("x"), columns.pop("y")
    n = len(x)
    labels = columns.pop("strata") if strata is not None else np.zeros(n)
    indicators = (labels[:, None] == np.unique(labels)).astype(np.float64)  # [n, strata], the intercept among them
    design = np.column_stack([indicators, *(rankdata(z) for z in columns.values())])
    names = ", ".join([*columns, *(["class"] if strata is not None else [])])
    method = f"partial Spearman's rho given {names or 'nothing'}, {_FISHER}"
    why = constant(x=x, y=y)
    if why:
        return undefined(f"{why}: a correlation needs variation", n, method)
    ranks = np.column_stack([rankdata(x), rankdata(y)])
    fit, _, rank, _ = np.linalg.lstsq(design, ranks, rcond=None)
    left = ranks - design @ fit
    if (left.std(0) <= 1e-9 * ranks.std(0)).any():
        return undefined(f"{names} leave nothing of x or y to correlate", n, method)
    return _estimate(left[:, 0], left[:, 1], n, int(rank) - 1, method)


def _estimate(x: Vector, y: Vector, n: int, held: int, method: str) -> Estimate:
    """Pearson's correlation of two vectors from which ``held`` covariates were taken, as an Estimate."""
    if n - held < 3:
        return undefined(f"{n} samples with {held} covariates: a correlation needs 3 more than covariates", n, method)
    x, y = x - x.mean(), y - y.mean()
    rho = float(np.clip(x @ y / math.sqrt(float(x @ x) * float(y @ y)), -1, 1))
    if abs(rho) > 1 - 1e-12:
        return Estimate(math.copysign(1.0, rho), p=0.0, n=n, method=method, reason="no interval at |rho| = 1")
    free = n - 2 - held
    p = float(2 * t.sf(abs(rho) * math.sqrt(free / (1 - rho**2)), free))
    if free < 3:
        return Estimate(rho, p=p, n=n, method=method, reason=f"no interval from {n} samples with {held} covariates")
    half = Z * math.sqrt((1 + rho**2 / 2) / (free - 1))
    centre = math.atanh(rho)
    return Estimate(rho, math.tanh(centre - half), math.tanh(centre + half), p, n, method)


def bootstrap(statistic: Callable[..., float | None], *columns: Any, resamples: int = 1000, seed: int = 0) -> Estimate:
    """A statistic of samples with the 95 % percentile interval of ``resamples`` resamples of them.

    Args:
        statistic: ``statistic(*columns) -> number``, or None where it is undefined. The columns come as ``[n]`` float64.
        columns: ``[n]`` each; resampled together, so that pairs stay pairs.
        seed: of the resampling.

    Returns:
        the interval over those resamples where the statistic is defined; none, with the reason, if more than 5 % are not.

    Raises:
        UserError: counts that differ, a value that is not finite, or fewer than 100 resamples.
    """
    if resamples < 100:
        raise OldError(f"resamples={resamples} given", "at least 100 for a 95 % interval", "type 1000")
    data = vectors(**{f"column {i}": column for i, column in enumerate(columns)})
    n, method = len(data[0]), f"percentile interval of {resamples} bootstrap resamples"
    value = statistic(*data)
    if value is None or not math.isfinite(value):
        return undefined("the statistic is undefined on these samples", n, method)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(n, size=n)
        drawn.append(statistic(*(column[rows] for column in data)))
    defined = [v for v in drawn if v is not None and math.isfinite(v)]
    if len(defined) < 0.95 * resamples:
        missing = resamples - len(defined)
        return Estimate(float(value), n=n, method=method, reason=f"undefined in {missing} of {resamples} resamples")
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), None, n, method)
