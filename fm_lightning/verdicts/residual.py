"""Residual: how far a schedule lies from the curve that a family draws in (memorized share M, distance Q).

P is the parabola through the family's three points ``(M_j, Q_j)``, ``L_j`` its Lagrange weights at the schedule's ``M_S``;
all rows over the same n seeds, ``m_i = hit_i - M`` and ``q_i`` the contributions to the distance:

    r   = Q_S - P(M_S) = Q_S - sum_j L_j Q_j
    f_i = q_S,i - P'(M_S) m_S,i - sum_j L_j [q_j,i - P'(M_j) m_j,i]
    se  = sd(f) / sqrt(n)

because ``dP(M_S) / dM_j = -L_j P'(M_j)``. A chord would not do: a convex curve lies below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fm_lightning.errors import OldError

Z = 1.96
LEVEL = 0.025  # of the one-sided tests that belong to Z
Floats = NDArray[np.float64]
Measure = Literal["frechet", "kernel"]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error."""

    value: float
    error: float

    @property
    def low(self) -> float:
        return self.value - Z * self.error

    @property
    def high(self) -> float:
        return self.value + Z * self.error

    def p_below(self, limit: float) -> float:
        """p of the test that the truth lies below ``limit``, against that it does not."""
        if self.error == 0:
            return float(self.value >= limit)
        return NormalDist().cdf((self.value - limit) / self.error)

    def p_above(self, limit: float) -> float:
        """p of the test that the truth lies above ``limit``, against that it does not."""
        return Estimate(-self.value, self.error).p_below(-limit)


@dataclass(frozen=True, eq=False)
class Quality:
    """A distance to real data with the first-order contributions to it.

    Attributes:
        value: the distance.
        influence: ``[n]`` of each seed, mean 0.
        reference: ``[m]`` of each real image, mean 0; None for claims about this reference alone.
    """

    value: float
    influence: Floats
    reference: Floats | None = None

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, _error(self.influence, self.reference))


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one row, seeds ascending and the same in every row.

    Attributes:
        hits: ``[n]`` bool, whether the sample is a copy.
        frechet: the Fréchet distance, extrapolated (``metrics.extrapolated``).
        kernel: the kernel distance (``metrics.mmd``).
    """

    hits: NDArray[np.bool_]
    frechet: Quality | None = None
    kernel: Quality | None = None

    @property
    def memorized(self) -> float:
        return float(np.mean(self.hits))

    def has(self, measure: Measure) -> bool:
        return (self.frechet if measure == "frechet" else self.kernel) is not None

    def quality(self, measure: Measure) -> Quality:
        """The distance by that measure.

        Raises:
            UserError: it was not measured, or not with a contribution of each seed.
        """
        quality = self.frechet if measure == "frechet" else self.kernel
        if quality is None or len(quality.influence) != len(self.hits):
            raise OldError(
                f"a row of {len(self.hits)} seeds without its {measure} distance given",
                "one with a contribution per seed",
                "measure it",
            )
        return quality


@dataclass(frozen=True)
class Residual:
    """``estimate`` of r, and the curve's slope ``P'(M_S)``."""

    estimate: Estimate
    slope: float


def residual(schedule: Measured, points: Sequence[Measured], measure: Measure) -> Residual | None:
    """The schedule's residual to the parabola through three rows of a family.

    Returns:
        None where the schedule's memorized share lies outside theirs, or two of theirs are equal.

    Raises:
        UserError: not three points, rows over different numbers of seeds, or a row without that distance.
    """
    if len(points) != 3:
        raise OldError(f"{len(points)} points of a family given", "3", "choose doses with choose_doses")
    at, nodes = schedule.memorized, [point.memorized for point in points]
    if len(set(nodes)) < 3 or not min(nodes) <= at <= max(nodes):
        return None
    qualities = [row.quality(measure) for row in points]
    curve = np.polynomial.Polynomial.fit(nodes, [q.value for q in qualities], 2)
    slope = curve.deriv()
    weights = _lagrange(nodes, at)
    own = schedule.quality(measure)
    terms = [(1.0, own, schedule.hits, at)] + [
        (-weight, quality, point.hits, node) for weight, quality, point, node in zip(weights, qualities, points, nodes)
    ]
    value = sum(weight * quality.value for weight, quality, _, _ in terms)
    parts = [weight * (quality.influence - slope(node) * (hits - node)) for weight, quality, hits, node in terms]
    error = _error(np.sum(parts, axis=0), _reference([(weight, quality) for weight, quality, _, _ in terms]))
    return Residual(Estimate(value, error), float(slope(at)))


def quality_change(after: Measured, before: Measured, measure: Measure) -> Estimate:
    """``Q(after) - Q(before)`` over the same seeds."""
    first, second = after.quality(measure), before.quality(measure)
    error = _error(first.influence - second.influence, _reference([(1.0, first), (-1.0, second)]))
    return Estimate(first.value - second.value, error)


def share_change(after: NDArray[np.bool_], before: NDArray[np.bool_]) -> Estimate:
    """Change of a share over the same seeds, with half a seed added to each of the four cells (Agresti and Min 2005).

    So the error is not zero where no seed changed: a hundred seeds without a change do not exclude one in fifty.
    """
    gained, lost = np.sum(after & ~before) + 0.5, np.sum(before & ~after) + 0.5
    n = len(after) + 2
    return Estimate(float(gained - lost) / n, math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n)


def _lagrange(nodes: Sequence[float], at: float) -> list[float]:
    return [
        math.prod((at - other) / (node - other) for k, other in enumerate(nodes) if k != j)
        for j, node in enumerate(nodes)
    ]


def _reference(terms: Sequence[tuple[float, Quality]]) -> Floats | None:
    """Contributions of the real images to a weighted sum of distances; None unless all rows have them."""
    parts = [weight * quality.reference for weight, quality in terms if quality.reference is not None]
    return np.sum(parts, axis=0) if len(parts) == len(terms) else None


def _error(influence: Floats, reference: Floats | None) -> float:
    squares = [np.var(part, ddof=1) / len(part) for part in (influence, reference) if part is not None]
    return float(np.sqrt(np.sum(squares)))
