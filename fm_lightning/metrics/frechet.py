"""Fréchet distance between the Gaussians of two sets of features (arXiv 1706.08500, eq. 6).

    d^2 = ||m - m_r||^2 + tr(S) + tr(S_r) - 2 tr( (S_r^1/2 S S_r^1/2)^1/2 )

Everything in float64. The reference's root is taken once; each further distance costs one symmetric eigenproblem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.features import FeatureExtractor
from fm_lightning.metrics.intervals import Change, paired_mean_change
from fm_lightning.metrics.per_seed import PairedMetric
from fm_lightning.trajectory import Trajectory


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` and unbiased covariance ``[D, D]`` of features ``[n, D]``, float64.

    Raises:
        UserError: fewer than two samples.
    """
    if len(features) < 2:
        raise UserError(f"Fréchet distance of {len(features)} samples asked for, expected at least 2; draw more seeds")
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


class GaussianReference:
    """The real side of Fréchet distances: mean, covariance, and the root of the covariance.

    Args:
        mean: ``[D]``.
        cov: ``[D, D]``.
        samples: how many images it was estimated from.
    """

    def __init__(self, mean: Tensor, cov: Tensor, samples: int = 0) -> None:
        self.mean, self.cov, self.samples = mean.double(), cov.double(), samples
        values, vectors = torch.linalg.eigh(self.cov)
        self.root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T

    def distance(self, mean: Tensor, cov: Tensor) -> float:
        """Squared Fréchet distance to the Gaussian with ``mean [D]`` and ``cov [D, D]``."""
        inner = self.root @ cov.double() @ self.root
        cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
        shift = (mean.double() - self.mean).square().sum()
        return float(shift + cov.double().trace() + self.cov.trace() - 2 * cross)

    def influence(self, features: Tensor) -> Tensor:
        """``[n]`` first-order contribution of each row of ``features [n, D]`` to the distance of their Gaussian.

        With ``T = S_r^1/2 (S_r^1/2 S S_r^1/2)^-1/2 S_r^1/2`` (the optimal transport between the two Gaussians) the
        distance changes with the covariance by ``tr((I - T) dS)``. Where S is singular, T is taken on its range.
        """
        mean, cov = moments(features)
        inner = self.root @ cov @ self.root
        values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
        keep = values > values.max() * 1e-12
        inverse_root = (vectors[:, keep] / values[keep].sqrt()) @ vectors[:, keep].T
        centred = features.double() - mean
        mapped = centred - centred @ (self.root @ inverse_root @ self.root)
        contribution = 2 * centred @ (mean - self.mean) + (centred * mapped).sum(1)
        return contribution - contribution.mean()


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet distance between two Gaussians: means ``[D]``, covariances ``[D, D]``."""
    return GaussianReference(mean2, cov2).distance(mean1, cov1)


class FrechetDistance(PairedMetric):
    """Fréchet distance of samples to real images on the features of ``extractor``.

    ``compute`` returns ``{extractor.key: distance}``. One value carries no interval, because resampling biases it upwards;
    ``change`` gives the paired difference of two schedules with its 95 % interval by influence functions.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the distance.
        reference: real features ``[n, D]``, or their ``GaussianReference``.
        read: brings samples into the space that the extractor reads, e.g. a datamodule's ``to_uint8``.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> from fm_lightning.metrics import RawFeatures
        >>> metric = FrechetDistance(RawFeatures(), torch.randn(1000, 2))
        >>> metric.update(integrate(lambda x, t, y: torch.zeros_like(x), torch.randn(1000, 2)))
        >>> metric.compute()["fd_raw"] < 0.1
        True
    """

    columns = ("features",)
    extractor: FeatureExtractor

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Tensor | GaussianReference,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.read = read
        # Kept out of the module tree: many metrics share one extractor, and none of them owns it.
        object.__setattr__(self, "extractor", extractor)
        if isinstance(reference, Tensor):
            reference = GaussianReference(*moments(reference.cpu()), samples=len(reference))
        self.reference = reference
        self._kept: tuple[Tensor, float, Tensor] | None = None

    @property
    def key(self) -> str:
        """The metric's name, e.g. ``fid`` or ``fd_digits``."""
        return self.extractor.key

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of samples."""
        self.append(trajectory, features=self.extractor(self.read(trajectory.x1) if self.read else trajectory.x1))

    def compute(self) -> dict[str, float]:
        return {self.key: self.reference.distance(*moments(self.local()["features"]))}

    def change(self, other: FrechetDistance) -> Change:
        """Distance here minus distance there, over the same seeds, with the paired 95 % interval."""
        self.same_seeds(other)
        (here, contributions), (there, others) = self._influence(), other._influence()
        return paired_mean_change(contributions - others, here - there)

    def _influence(self) -> tuple[float, Tensor]:
        """The distance and its contributions per seed, kept until the next update: base is compared with every row."""
        features = self.per_seed()["features"]
        if self._kept is None or self._kept[0] is not features:
            distance = self.reference.distance(*moments(features))
            self._kept = features, distance, self.reference.influence(features)
        return self._kept[1:]
