"""Random effects: one effect out of several replicates, and how far it varies between them.

Replicate i has the true effect ``theta_i ~ N(mu, tau^2)``, of which ``y_i ~ N(theta_i, s_i^2)`` was measured. With
``w_i = 1 / (tau^2 + s_i^2)``:

    tau^2   solves sum w_i (y_i - mu)^2 = k - 1, or is 0                     Paule and Mandel, 1982
    mu      = sum w_i y_i / sum w_i
    se^2    = q / sum w_i,  q = max(1, sum w_i (y_i - mu)^2 / (k - 1))       Hartung and Knapp, 2001; Röver et al., 2015
    mu +- t_{k-1} se                                                         95% interval
    mu +- t_{k-1} sqrt(tau^2 + se^2)                                         prediction interval of another theta
    I^2     = tau^2 / (tau^2 + s^2),  s^2 the typical s_i^2                  Higgins and Thompson, 2002

With q at least 1 the interval is never shorter than the one with tau = 0, where few replicates agree by chance. In simulation
the interval covers mu in at least 94% of cases for 2 to 10 replicates. The prediction interval promises less than 95%: it covers
another theta in about 91% of cases for three replicates and in 86 to 90% for five and more where tau is about as large as s,
because tau^2 is then often estimated as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t

from fm_lightning.errors import UserError

LEAST = 3  # replicates, for a prediction interval and for a claim
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Combined:
    """The effect over replicates, in the effect's unit.

    Attributes:
        replicates: k.
        value: mu, with its 95% interval ``low`` to ``high``.
        error: se.
        tau: standard deviation between replicates, beyond what their own errors explain.
        i_squared: the share of the variance that lies between replicates, 0 to 1.
        prediction: a prediction interval for the true effect of another replicate, whose coverage is 86% at least (see above);
            None for fewer than three replicates.
    """

    replicates: int
    value: float
    error: float
    low: float
    high: float
    tau: float
    i_squared: float
    prediction: tuple[float, float] | None


def combine(effects: Sequence[float], errors: Sequence[float]) -> Combined:
    """The combined effect of at least two replicates.

    Args:
        effects: y_i.
        errors: s_i, their standard errors. 0 means exact.

    Raises:
        UserError: fewer than two, of different lengths, or not finite.
    """
    y, s = np.asarray(effects, dtype=float), np.asarray(errors, dtype=float)
    k = len(y)
    if k < 2 or len(s) != k or not (np.isfinite(y).all() and np.isfinite(s).all() and (s >= 0).all()):
        raise UserError(
            f"Cannot combine the effects {list(effects)} with the standard errors {list(errors)}.",
            "Pass at least two finite effects with one error each.",
        )
    size = float(np.abs(y).max() + s.max())
    if size == 0:
        return Combined(k, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0) if k >= LEAST else None)
    variances = np.maximum(s, 1e-9 * size) ** 2  # an exact effect keeps a finite weight
    tau2 = _paule_mandel(y, variances)
    w = 1 / (tau2 + variances)
    value = float(w @ y / w.sum())
    q = max(1.0, _spread(y, variances, tau2) / (k - 1))
    error = math.sqrt(q / float(w.sum()))
    reach = float(t.ppf(0.975, k - 1))
    about = reach * math.sqrt(tau2 + error**2)
    fixed = 1 / variances
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    return Combined(
        replicates=k,
        value=value,
        error=error,
        low=value - reach * error,
        high=value + reach * error,
        tau=math.sqrt(tau2),
        i_squared=float(tau2 / (tau2 + typical)),
        prediction=(value - about, value + about) if k >= LEAST else None,
    )


def _spread(y: Floats, variances: Floats, tau2: float) -> float:
    w = 1 / (tau2 + variances)
    return float(w @ (y - w @ y / w.sum()) ** 2)


def _paule_mandel(y: Floats, variances: Floats) -> float:
    k = len(y)
    if _spread(y, variances, 0.0) <= k - 1:
        return 0.0
    # The spread falls in tau^2, and from the sample variance on it is below k - 1.
    most = 2 * float(y.var(ddof=1))
    return float(brentq(lambda tau2: _spread(y, variances, tau2) - (k - 1), 0.0, most, rtol=1e-12))
