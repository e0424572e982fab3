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
from fm_lightning.metrics.feature_metric import FeatureMetric
from fm_lightning.metrics.feature_moments import BLOCK, from_sums, moments
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.intervals import Change, paired_mean_change
from fm_lightning.metrics.per_seed import check_same_seeds
from fm_lightning.trajectory import Trajectory


class GaussianReference:
    """The real side of Fréchet distances: mean, covariance, and the root of the covariance.

    Args:
        mean: ``[D]``.
        cov: ``[D, D]``.
        samples: how many images it was estimated from; 0 if unknown.
        root: ``[D, D]`` the symmetric root of ``cov``, where it is already known.
    """

    def __init__(self, mean: Tensor, cov: Tensor, samples: int = 0, root: Tensor | None = None) -> None:
        self.mean, self.cov, self.samples = mean.double(), cov.double(), samples
        if root is None:
            values, vectors = torch.linalg.eigh(self.cov)
            root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        self.root = root

    def distance(self, mean: Tensor, cov: Tensor) -> float:
        """Squared Fréchet distance to the Gaussian with ``mean [D]`` and ``cov [D, D]``."""
        return self._distance(mean, cov, torch.linalg.eigvalsh(self._inner(cov)))

    def _inner(self, cov: Tensor) -> Tensor:
        inner = self.root @ cov.double() @ self.root
        return (inner + inner.T) / 2

    def _distance(self, mean: Tensor, cov: Tensor, inner_values: Tensor) -> float:
        shift = (mean.double() - self.mean).square().sum()
        return float(shift + cov.double().trace() + self.cov.trace() - 2 * inner_values.clamp_min(0).sqrt().sum())

    def influence(self, features: Tensor, of: tuple[Tensor, Tensor] | None = None) -> tuple[float, Tensor]:
        """The distance, and ``[n]`` the first-order contribution of each row of ``features [n, D]`` to it.

        With ``T = S_r^1/2 (S_r^1/2 S S_r^1/2)^-1/2 S_r^1/2`` (the optimal transport between the two Gaussians) the
        distance changes with the covariance by ``tr((I - T) dS)``. Where S is singular, T is taken on its range.

        Args:
            features: ``[n, D]``.
            of: mean and covariance of all samples, where ``features`` are only some of them.
        """
        mean, cov = of or moments(features)
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
        return self._distance(mean, cov, values), contribution - contribution.mean()


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet distance between two Gaussians: means ``[D]``, covariances ``[D, D]``."""
    return GaussianReference(mean2, cov2).distance(mean1, cov1)


class FrechetDistance(FeatureMetric):
    """Fréchet distance of samples to real images on the features of ``extractor``.

    ``compute`` returns ``{extractor.key: distance}``. One value carries no interval, because resampling biases it upwards;
    ``change`` gives the paired difference of two schedules with its 95 % interval by influence functions.

    Features are kept per seed, 8 kB a sample for Inception's. With ``keep`` only those of the smallest ``keep`` seeds are;
    all others enter sums over samples (``8 D^2`` bytes, 34 MB for Inception's), which processes add instead of gathering
    features. The distance still comes from all samples. The interval then takes the spread of the contributions from the
    kept seeds, each judged by the transport of all samples, and divides it by the root of the number of all: a spread from
    10 000 seeds is known to about 1 %, so little is lost.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the distance.
        reference: real features ``[n, D]``, or their ``GaussianReference``.
        read: brings samples into the space that the extractor reads, e.g. a datamodule's ``to_uint8``.
        keep: how many seeds' features are kept; None keeps all.

    Raises:
        UserError: ``keep`` below 2; at ``update``, features of another width than the reference's.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> from fm_lightning.metrics import RawFeatures
        >>> metric = FrechetDistance(RawFeatures(), torch.randn(1000, 2))
        >>> metric.update(integrate(lambda x, t, y: torch.zeros_like(x), torch.randn(1000, 2)))
        >>> metric.compute()["fd_raw"] < 0.1
        True
    """

    features: list[Tensor]
    let_go: Tensor
    let_go_sum: Tensor
    let_go_outer: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Tensor | GaussianReference,
        read: Callable[[Tensor], Tensor] | None = None,
        keep: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(reference, Tensor):
            reference = GaussianReference(*moments(reference.cpu()), samples=len(reference))
        super().__init__(extractor, len(reference.mean), read, **kwargs)
        if keep is not None and keep < 2:
            raise UserError(f"keep={keep} given, expected at least 2 seeds' features; type e.g. 10000, or leave it out")
        self.reference, self.keep = reference, keep
        if keep is not None:
            d = self.width
            self.add_state("let_go", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state("let_go_sum", default=torch.zeros(d, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("let_go_outer", default=torch.zeros(d, d, dtype=torch.float64), dist_reduce_fx="sum")
        self._kept: tuple[Tensor, float, Tensor, int] | None = None

    def append(self, trajectory: Trajectory, **columns: Tensor) -> None:
        self._kept = None
        super().append(trajectory, **columns)
        if self.keep is not None and sum(map(len, self.seeds)) > self.keep:
            self._let_go(self.keep)

    def _let_go(self, keep: int) -> None:
        """Moves all but the ``keep`` smallest seeds' features into the sums."""
        bound = torch.cat([seeds.cpu() for seeds in self.seeds]).sort().values[keep - 1]
        for i, (seeds, features) in enumerate(zip(self.seeds, self.features)):
            beyond = seeds.cpu() > bound
            if not beyond.any():
                continue
            gone, stay = beyond.nonzero()[:, 0], (~beyond).nonzero()[:, 0]
            # About the reference's mean, which every process has: their sums may be added, and lose no digits.
            shifted = features[gone.to(features.device)].to(self.let_go_sum) - self.reference.mean.to(self.let_go_sum)
            self.let_go += len(shifted)
            self.let_go_sum += shifted.sum(0)
            self.let_go_outer.addmm_(shifted.T, shifted)
            self.seeds[i], self.features[i] = seeds[stay.to(seeds.device)], features[stay.to(features.device)]

    def reset(self) -> None:
        super().reset()
        self._kept = None

    def local(self) -> dict[str, Tensor]:
        """The kept columns; gathered from several processes they are cut to the ``keep`` smallest seeds."""
        return {name: values[: self.keep] for name, values in super().local().items()}

    def _moments(self) -> tuple[int, tuple[Tensor, Tensor]]:
        """How many samples, and their mean and covariance. Only where states are synchronised."""
        features = super().local()["features"]  # all that were kept anywhere, hence not in the sums
        if self.keep is None or not int(self.let_go):
            return len(features), moments(features)
        centre = self.reference.mean
        total, outer = self.let_go_sum.cpu().clone(), self.let_go_outer.cpu().clone()
        for part in features.split(BLOCK):
            shifted = part.double() - centre
            total += shifted.sum(0)
            outer.addmm_(shifted.T, shifted)
        count = len(features) + int(self.let_go)
        return count, from_sums(count, total, outer, centre)

    def compute(self) -> dict[str, float]:
        # The distance comes with the influences where both are wanted: one eigenproblem, not two.
        return {self.key: self._kept[1] if self._kept else self.reference.distance(*self._moments()[1])}

    def change(self, other: FrechetDistance) -> Change:
        """Distance here minus distance there, over the same seeds, with the paired 95 % interval."""
        seeds, here, contributions, n = self._influence()
        other_seeds, there, others, _ = other._influence()
        check_same_seeds(seeds, other_seeds)
        return paired_mean_change(contributions - others, here - there, n)

    def _influence(self) -> tuple[Tensor, float, Tensor, int]:
        """Kept seeds, the distance, contributions per kept seed, and the number of samples.

        Remembered until the next update, because base is compared with every row; the features themselves are not.
        """
        if self._kept is None:
            with self.sync_context():
                rows = self.local()
                n, (mean, cov) = self._moments()
            distance, contributions = self.reference.influence(rows["features"], (mean, cov))
            self._kept = rows["seeds"], distance, contributions, n
        return self._kept
