"""Residual: how far a schedule lies from the curve that a family draws in (memorized share M, distance Q).

P is the parabola through the family's three points ``(M_j, Q_j)``, ``L_j`` its Lagrange weights at the schedule's ``M_S``;
all rows over the same n seeds, ``m_i = hit_i - M`` and ``q_i`` the contributions to the distance:

    r   = Q_S - P(M_S) = Q_S - sum_j L_j Q_j
    f_i = q_S,i - P'(M_S) m_S,i - sum_j L_j [q_j,i - P'(M_j) m_j,i]
    se  = sd(f) / sqrt(n)

because ``dP(M_S) / dM_j = -L_j P'(M_j)``. A chord would not do: a convex curve lies below it. As a share of the baseline's
distance Q_B the residual is ``r / Q_B``, with ``f_i / Q_B - r q_B,i / Q_B^2`` (the delta method), for Q_B is an estimate, too.

Where doses merely exist (checkpoints), points lie far apart and no parabola in (M, Q) follows the curve. There P is a parabola in
(logit M, log Q), ``u = logit M``, ``w = log Q``, and the curve at the schedule is ``C = exp P(u_S)``:

    f_i = q_S,i - C { P'(u_S) du_S,i + sum_j L_j [q_j,i / Q_j - P'(u_j) du_j,i] },   du_i = m_i / (M (1 - M))

Checkpoints scatter about a smooth curve by more than their seeds explain, ``ROUGHNESS`` of Q, which adds
``C ROUGHNESS sqrt(sum_j L_j^2)`` in quadrature. Each residual also has the contributions of the real images, with which it is
about all such real images; ``Estimate.conditional`` leaves them out, for the verdict on just these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate

LEVEL = 0.025  # of the one-sided tests that belong to a 95% interval
ROUGHNESS = 0.012  # of checkpoints, a share of Q; on digits, one every 250 of 5,000 steps
SOLID = 4.0  # standard errors that a distance must lie above 0 before anything is divided by it
Floats = NDArray[np.float64]
Distance = Literal["frechet", "kernel"]


@dataclass(frozen=True, eq=False)
class Observed:
    """What was measured of one row, seeds ascending and the same in every row.

    Attributes:
        hits: ``[n]`` bool, whether the sample is a copy.
        frechet: the Fréchet distance, extrapolated (``metrics.extrapolated``), with the contribution of each seed.
        kernel: the kernel distance (``metrics.mmd``), with the same fields.
    """

    hits: NDArray[np.bool_]
    frechet: Estimate | None = None
    kernel: Estimate | None = None

    @property
    def memorized(self) -> float:
        return float(np.mean(self.hits))

    def has(self, distance: Distance) -> bool:
        return (self.frechet if distance == "frechet" else self.kernel) is not None

    def quality(self, distance: Distance) -> Estimate:
        """The distance of that name.

        Raises:
            UserError: it was not measured, or not with one contribution per seed.
        """
        quality = self.frechet if distance == "frechet" else self.kernel
        if quality is None or quality.influence is None or len(quality.influence) != len(self.hits):
            raise UserError(
                f"A row of {len(self.hits):,} seeds has no {distance} distance over these seeds.", "Measure it."
            )
        return quality


@dataclass(frozen=True)
class Residual:
    """``estimate`` of r, and the curve's slope ``P'(M_S)``."""

    estimate: Estimate
    slope: float


def residual(
    schedule: Observed, points: Sequence[Observed], distance: Distance, discrete: float | None = None
) -> Residual | None:
    """The schedule's residual to the parabola through three rows of a family.

    Args:
        schedule: the row that is judged.
        points: three rows of the family, over the same seeds.
        distance: the name of Q.
        discrete: the standard deviation of points about a smooth curve, as a share of Q, where doses merely exist: the
            parabola is then one in (logit M, log Q), if all Q are above 0. None: any dose exists.

    Returns:
        None where the schedule's memorized share lies outside theirs, or two of theirs are equal.

    Raises:
        UserError: not three points, rows over different numbers of seeds, or a row without that distance.
    """
    if len(points) != 3:
        raise UserError(f"A curve needs 3 points, not {len(points)}.", "Choose doses with choose_doses.")
    at, nodes = schedule.memorized, [point.memorized for point in points]
    if len(set(nodes)) < 3 or not min(nodes) <= at <= max(nodes):
        return None
    qualities = [row.quality(distance) for row in points]
    if discrete is not None and min(q.value for q in qualities) > 0 and min(nodes) > 0 and max(nodes) < 1:
        return _logarithmic(schedule, points, distance, discrete)
    curve = np.polynomial.Polynomial.fit(nodes, [q.value for q in qualities], 2)
    slope = curve.deriv()
    weights = lagrange(nodes, at)
    own = schedule.quality(distance)
    terms = [(1.0, own, schedule.hits, at)] + [
        (-weight, quality, point.hits, node) for weight, quality, point, node in zip(weights, qualities, points, nodes)
    ]
    value = sum(weight * quality.value for weight, quality, _, _ in terms)
    parts = [weight * (_influence(quality) - slope(node) * (hits - node)) for weight, quality, hits, node in terms]
    real = [weight * quality.reference for weight, quality, _, _ in terms if quality.reference is not None]
    reference = np.sum(real, axis=0) if len(real) == len(terms) else None
    extra = (discrete or 0.0) * math.hypot(*(weight * quality.value for weight, quality in zip(weights, qualities)))
    return Residual(Estimate.of(value, np.sum(parts, axis=0), reference, extra), float(slope(at)))


def _influence(quality: Estimate) -> Floats:
    assert quality.influence is not None  # every distance that judges has them
    return quality.influence


def _logarithmic(schedule: Observed, points: Sequence[Observed], distance: Distance, roughness: float) -> Residual:
    """The residual to a parabola in (logit M, log Q)."""
    own, qualities = schedule.quality(distance), [row.quality(distance) for row in points]
    at, *nodes = (math.log(row.memorized / (1 - row.memorized)) for row in (schedule, *points))
    curve = np.polynomial.Polynomial.fit(nodes, [math.log(q.value) for q in qualities], 2)
    slope, weights = curve.deriv(), lagrange(nodes, at)
    predicted = math.exp(float(curve(at)))

    def moved(row: Observed) -> Floats:
        return np.asarray((row.hits - row.memorized) / (row.memorized * (1 - row.memorized)), np.float64)

    parts, real = [slope(at) * moved(schedule)], []
    for weight, quality, point, node in zip(weights, qualities, points, nodes):
        parts.append(weight * (_influence(quality) / quality.value - slope(node) * moved(point)))
        if quality.reference is not None:
            real.append(weight * quality.reference / quality.value)
    influence = own.influence - predicted * np.sum(parts, axis=0)
    whole = len(real) == len(points) and own.reference is not None
    reference = own.reference - predicted * np.sum(real, axis=0) if whole else None
    price = predicted * float(slope(at)) / (schedule.memorized * (1 - schedule.memorized))
    extra = predicted * roughness * math.hypot(*weights)
    return Residual(Estimate.of(own.value - predicted, influence, reference, extra), price)


def relative(change: Estimate, base: Estimate) -> Estimate | None:
    """The change as a share of the baseline's distance, whose own error is part of it; None where that is not clearly above 0."""
    return change / base if base.value > SOLID * base.error else None


def lagrange(nodes: Sequence[float], at: float) -> list[float]:
    """The weights that a parabola through three nodes gives them ``at`` a place."""
    return [
        math.prod((at - other) / (node - other) for k, other in enumerate(nodes) if k != j)
        for j, node in enumerate(nodes)
    ]
