"""Fréchet distance between the Gaussians of two sets of features (arXiv 1706.08500, eq. 6).

    d^2 = ||m - m_r||^2 + tr(S) + tr(S_r) - 2 tr( (S_r^1/2 S S_r^1/2)^1/2 )

Everything in float64. The reference's root is taken once; each further distance costs one symmetric eigenproblem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import OldError, UserError
from fm_lightning.metrics.feature_metric import FeatureMetric
from fm_lightning.metrics.feature_moments import BLOCK, moments
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.intervals import Change, Influence, paired_mean_change
from fm_lightning.metrics.per_seed import Columns, check_same_seeds

ROUNDING = 1e-6  # what rounding may do to eigenvalues and distances, relative to the largest
ASYMMETRY = 1e-4  # and to covariances, whose two halves may come from products in float32, relative to the variances


class GaussianReference:
    """The real side of Fréchet distances: mean, covariance, and the root of the covariance.

    Args:
        mean: ``[D]``.
        cov: ``[D, D]``.
        samples: how many images it was estimated from; 0 if unknown.

    Raises:
        UserError: shapes that do not go together, numbers that are not finite, or no covariance: complex, not symmetric, or
            with a negative eigenvalue.
    """

    def __init__(self, mean: Tensor, cov: Tensor, samples: int = 0) -> None:
        _check_gaussian(mean, cov)
        self.mean, self.cov, self.samples = mean.double(), cov.double(), samples
        values, vectors = torch.linalg.eigh((self.cov + self.cov.T) / 2)
        _check_eigenvalues(values)
        self.root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T

    def distance(self, mean: Tensor, cov: Tensor) -> float:
        """Squared Fréchet distance to the Gaussian with ``mean [D]`` and ``cov [D, D]``.

        Raises:
            UserError: another D, or what the reference's own mean and covariance would be refused for.
        """
        _check_gaussian(mean, cov)
        if mean.shape != self.mean.shape:
            raise OldError(
                f"mean and covariance of {len(mean)} features given",
                f"the reference's {len(self.mean)}",
                "take the features of both from one extractor",
            )
        return self._distance(mean, cov, torch.linalg.eigvalsh(self._inner(cov)))

    def _inner(self, cov: Tensor) -> Tensor:
        inner = self.root @ cov.double() @ self.root
        return (inner + inner.T) / 2

    def _distance(self, mean: Tensor, cov: Tensor, inner_values: Tensor) -> float:
        _check_eigenvalues(inner_values)
        shift, spread = (mean.double() - self.mean).square().sum(), cov.double().trace() + self.cov.trace()
        value = float(shift + spread - 2 * inner_values.clamp_min(0).sqrt().sum())
        if value < -ROUNDING * float(shift + spread):  # of matrices with no negative eigenvalue none is negative
            raise _no_covariance(f"covariances with the Fréchet distance {value:.4g}")
        return max(0.0, value)

    def influence(self, features: Tensor) -> Influence:
        """The distance of the samples whose features ``[n, D]`` are given, with the contribution of each.

        With ``T = S_r^1/2 (S_r^1/2 S S_r^1/2)^-1/2 S_r^1/2`` (the optimal transport between the two Gaussians) the
        distance changes with the covariance by ``tr((I - T) dS)``. Where S is singular, T is taken on its range.
        """
        mean, cov = moments(features)
        values, vectors = torch.linalg.eigh(self._inner(cov))
        keep = values > values.max() * 1e-12
        inverse_root = (vectors[:, keep] / values[keep].sqrt()) @ vectors[:, keep].T
        transport = self.root @ inverse_root @ self.root
        parts = []
        for part in features.split(BLOCK):
            centred = part.double() - mean
            mapped = centred - centred @ transport
            parts.append(2 * centred @ (mean - self.mean) + (centred * mapped).sum(1))
        contribution = torch.cat(parts)
        return Influence(self._distance(mean, cov, values), contribution - contribution.mean())


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet distance between two Gaussians: means ``[D]``, covariances ``[D, D]``.

    Raises:
        UserError: what ``GaussianReference`` refuses, on either side.
    """
    first, second = GaussianReference(mean1, cov1), GaussianReference(mean2, cov2)
    return second.distance(first.mean, first.cov)


def _no_covariance(what: str) -> UserError:
    return OldError(
        f"{what} given", "a symmetric matrix without negative eigenvalues", "estimate it anew from the features"
    )


def _check_gaussian(mean: Tensor, cov: Tensor) -> None:
    if mean.ndim != 1 or not len(mean) or cov.shape != (len(mean), len(mean)):
        raise OldError(
            f"a mean {list(mean.shape)} with a covariance {list(cov.shape)} given",
            "[D] and [D, D]",
            "estimate both from the same features",
        )
    if mean.is_complex() or cov.is_complex():
        raise OldError("a complex mean or covariance given", "real numbers", "estimate both from real features")
    for name, values in {"mean": mean, "covariance": cov}.items():
        if not values.isfinite().all():
            raise OldError(
                f"a {name} with NaN or infinity given", "finite numbers", "estimate it anew from finite features"
            )
    variance = cov.diagonal().double()
    if variance.min() < -ROUNDING * variance.abs().max():
        raise _no_covariance(f"a covariance with the variance {float(variance.min()):.4g}")
    spread = variance.clamp_min(0).sqrt()
    allowed = ASYMMETRY * spread[:, None] * spread + 1e-7 * variance.max()
    beyond = (cov.double() - cov.double().T).abs() > allowed
    if beyond.any():
        i, j = beyond.nonzero()[0].tolist()
        raise _no_covariance(
            f"a covariance with {float(cov[i, j]):.4g} at [{i}, {j}] and {float(cov[j, i]):.4g} at [{j}, {i}]"
        )


def _check_eigenvalues(values: Tensor) -> None:
    """Ascending eigenvalues ``[D]``; those of rounding errors may be negative."""
    if float(values[0]) < -ROUNDING * float(values[-1].abs()):
        raise _no_covariance(f"a covariance with eigenvalues from {float(values[0]):.4g} to {float(values[-1]):.4g}")


class FrechetDistance(FeatureMetric):
    """Fréchet distance of samples to real images on the features of ``extractor``.

    ``measure`` gives ``features`` ``[B, D]`` (8 kB a sample for Inception's), ``summarize`` returns
    ``{extractor.key: distance}``. One value carries no interval, because resampling biases it upwards;
    ``change`` gives the paired difference of two schedules with its 95 % interval by influence functions.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the distance.
        reference: real features ``[n, D]``, or their ``GaussianReference``.
        read: brings samples into the space that the extractor reads, e.g. a datamodule's ``to_uint8``.

    Raises:
        UserError: at ``update``, features of another width than the reference's; at ``compute``, fewer than two samples.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> from fm_lightning.metrics import RawFeatures
        >>> metric = FrechetDistance(RawFeatures(), torch.randn(1000, 2))
        >>> metric.update(integrate(lambda x, t, y: torch.zeros_like(x), torch.randn(1000, 2)))
        >>> metric.compute()["fd_raw"] < 0.1
        True
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Tensor | GaussianReference,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(reference, Tensor):
            reference = GaussianReference(*moments(reference.cpu()), samples=len(reference))
        super().__init__(extractor, len(reference.mean), read, **kwargs)
        self.reference = reference

    def summarize(self, columns: Columns) -> dict[str, float]:
        return {self.key: self.reference.distance(*moments(columns["features"]))}

    def influence(self, columns: Columns) -> Influence:
        """The distance, and what each sample contributes to it: one eigenproblem of ``[D, D]``."""
        return self.reference.influence(columns["features"])

    def change(self, here: Columns, there: Columns) -> Change:
        """Distance here minus distance there, over the same seeds line by line, with the paired 95 % interval."""
        check_same_seeds(here, there)
        return paired_mean_change(self.influence(here), self.influence(there))
