"""Interval: a number with its 95% interval. Estimate: also its standard error, and what each sample contributes to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fm_lightning.errors import UserError

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Interval(NamedTuple):
    """A number and its 95% interval; an end that is unknown is NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its interval; unpacks as ``value, low, high``.

    Attributes:
        value: the number.
        error: its standard error.
        low, high: its 95% interval; by default the normal one.
        influence: ``[n]`` first-order contributions of the samples, of mean 0.
        reference: ``[m]`` those of the real images; None for a claim about just these images.
        extra: a further standard error, which more samples do not lower.
    """

    value: float
    error: float
    low: float = float("nan")
    high: float = float("nan")
    influence: NDArray[np.float64] | None = None
    reference: NDArray[np.float64] | None = None
    extra: float = 0.0

    def __post_init__(self) -> None:
        if np.isnan(self.low):
            object.__setattr__(self, "low", self.value - Z * self.error)
        if np.isnan(self.high):
            object.__setattr__(self, "high", self.value + Z * self.error)

    @classmethod
    def of(cls, value: float, influence: ArrayLike, reference: ArrayLike | None = None, extra: float = 0.0) -> Estimate:
        """The estimate with ``error^2 = var(influence) / n + var(reference) / m + extra^2``."""
        parts = [np.asarray(part, np.float64) for part in (influence, reference) if part is not None]
        variances = (np.var(part, ddof=1) / len(part) if len(part) > 1 else np.nan for part in parts)
        error = float(np.sqrt(sum(variances) + extra**2))
        return cls(value, error, influence=parts[0], reference=parts[1] if len(parts) > 1 else None, extra=extra)

    @classmethod
    def between(cls, value: float, low: float, high: float) -> Estimate:
        """The estimate with this 95% interval, and the standard error that a normal interval of its width has."""
        return cls(value, (high - low) / (2 * Z), low, high)

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high))

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired difference: contributions of the same seeds, and of the same real images, are subtracted."""
        assert self.influence is not None
        assert other.influence is not None
        if len(self.influence) != len(other.influence):
            raise UserError(
                f"Cannot pair {len(self.influence):,} samples with {len(other.influence):,}.",
                "Pass equally many of both.",
            )
        both = self.reference is not None and other.reference is not None
        reference = self.reference - other.reference if both else None  # type: ignore[operator]
        extra = float(np.hypot(self.extra, other.extra))
        return Estimate.of(self.value - other.value, self.influence - other.influence, reference, extra)

    def __truediv__(self, other: Estimate) -> Estimate:
        """The paired quotient, which carries the error of both (the delta method)."""
        assert self.influence is not None
        assert other.influence is not None
        ratio = self.value / other.value
        influence = (self.influence - ratio * other.influence) / other.value
        both = self.reference is not None and other.reference is not None
        reference = (self.reference - ratio * other.reference) / other.value if both else None  # type: ignore[operator]
        extra = float(np.hypot(self.extra, ratio * other.extra)) / abs(other.value)
        return Estimate.of(ratio, influence, reference, extra)

    @property
    def conditional(self) -> Estimate:
        """The same number as a claim about just these real images, without their own error."""
        if self.reference is None or self.influence is None:
            return self
        return Estimate.of(self.value, self.influence, extra=self.extra)

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies wholly on one side of zero, else 0."""
        return -1 if self.high < 0 else 1 if self.low > 0 else 0

    def p_below(self, limit: float) -> float:
        """p of the test that the truth lies below ``limit``, against the hypothesis that it does not."""
        if self.error == 0:
            return float(self.value >= limit)
        return NormalDist().cdf((self.value - limit) / self.error)

    def p_above(self, limit: float) -> float:
        """p of the test that the truth lies above ``limit``, against the hypothesis that it does not."""
        return Estimate(-self.value, self.error).p_below(-limit)


def share(hits: ArrayLike) -> Estimate:
    """A share of hits ``[n]`` bool, with its contributions and Wilson's interval (1927)."""
    hits = np.asarray(hits, np.float64)
    value = float(hits.mean())
    low, high = wilson(int(hits.sum()), len(hits))
    return replace(Estimate.of(value, hits - value), low=low, high=high)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share; (nan, nan) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    centre, spread = hits + Z**2 / 2, Z * np.sqrt(hits * (n - hits) / n + Z**2 / 4)
    low, high = (centre - spread) / (n + Z**2), (centre + spread) / (n + Z**2)
    return (0.0 if hits == 0 else float(low)), (1.0 if hits == n else float(high))


def share_change(after: Any, before: Any) -> Estimate:
    """The change of a share over the same seeds, ``[n]`` bool each, from the seeds that changed (McNemar).

    Half a seed is added to each of the four cells (Agresti and Min 2005), which keeps the coverage where few seeds changed:
    a hundred seeds without a change do not exclude one in fifty. ``value`` is the centre of the interval; the plain
    difference of the shares lies within ``2 / n`` of it.

    Raises:
        UserError: another number of samples after than before, or none.
    """
    after, before = np.asarray(after, bool), np.asarray(before, bool)
    if len(after) != len(before) or not len(after):
        raise UserError(f"Cannot pair {len(after):,} samples with {len(before):,}.", "Pass equally many of both.")
    gained, lost, n = np.sum(after & ~before) + 0.5, np.sum(before & ~after) + 0.5, len(after) + 2
    value, error = float(gained - lost) / n, float(np.sqrt(gained + lost - (gained - lost) ** 2 / n)) / n
    return Estimate(value, error, max(-1.0, value - Z * error), min(1.0, value + Z * error))
