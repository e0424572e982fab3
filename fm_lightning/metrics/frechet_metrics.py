"""The metrics of the Fréchet distance: one that keeps every sample's features, and one that keeps only their moments."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.feature_metric import FeatureMetric, features_of
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.frechet import GaussianReference, check_finite, moments
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.per_seed import check_same_seeds
from fm_lightning.metrics.real_features import RealFeatures
from fm_lightning.metrics.summaries import SUMMARIES
from fm_lightning.phrases import counted
from fm_lightning.trajectory import Trajectory

Real = Tensor | GaussianReference | RealFeatures
UNSEEN = "-unseen"


class FrechetDistance(FeatureMetric):
    """Fréchet distance of samples to real images on the features of ``extractor``.

    ``measure`` gives ``features`` ``[B, D]`` (8 kB per sample for Inception's), ``summarize`` returns
    ``{extractor.key: distance}`` and the summaries. One value has no interval, because resampling biases it upwards;
    ``change`` gives the paired difference of two schedules with its 95% interval by influence functions. Where neither
    changes nor summaries are needed, ``FrechetMoments`` computes the same distance in ``O(D^2)`` memory.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the distance.
        reference: real features ``[n, D]`` (or ``RealFeatures`` of them), or their ``GaussianReference`` alone.
        read: brings samples into the space that the extractor reads, for example a datamodule's ``to_uint8``.
        summaries: other numbers of the same features: kid, precision_recall, inception_score, cmmd.
        unseen: the real features that verdicts compare with, or a function that computes them when they are needed; the
            reference, if training did not see it.

    Raises:
        UserError: a summary that the extractor or the reference cannot give; at ``update``, features of another width than
            the reference's; at ``compute``, fewer than two samples.

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
        reference: Real,
        read: Callable[[Tensor], Tensor] | None = None,
        summaries: Sequence[str] = (),
        unseen: RealFeatures | Callable[[], RealFeatures] | None = None,
        **kwargs: Any,
    ) -> None:
        real = real_features(reference)
        super().__init__(extractor, real.width, read, **kwargs)
        self.real, self._unseen = real, unseen
        self.summaries = [SUMMARIES[name] for name in summaries]
        for summary in self.summaries:
            summary.check(extractor)
        # A row's distance, change and quality rest on one eigenproblem; base's serves all rows.
        self._latest: tuple[weakref.ref[Tensor], Estimate] | None = None
        self._base: tuple[weakref.ref[Tensor], Estimate] | None = None

    @property
    def reference(self) -> GaussianReference:
        return self.real.gaussian

    @property
    def unseen(self) -> RealFeatures:
        """The real features that verdicts compare with."""
        if not isinstance(self._unseen, RealFeatures):
            self._unseen = self._unseen() if self._unseen else self.real
        return self._unseen

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        """The distance, each summary that the number of samples allows, and the change from base."""
        features = columns["features"]
        if len(features) < 2:
            return {}
        value = self.estimate(columns).value if base is not None else self.real.gaussian.distance(*moments(features))
        numbers = {self.key: value}
        for summary in self.summaries:
            if len(features) >= summary.least and (self.real.features is not None or not summary.reads_real):
                numbers |= summary.numbers(features, self.real, self.extractor)
        return self.with_change(numbers, columns, base)

    def compute(self) -> dict[str, float]:
        numbers = super().compute()
        if not numbers:
            raise UserError("One sample has no covariance.", "Use at least 2 samples.")
        return numbers

    def estimate(self, columns: Columns) -> Estimate:
        """The distance and what each sample contributes to it: one eigenproblem of ``[D, D]``."""
        features = columns["features"]
        if self._latest is None or self._latest[0]() is not features:
            self._latest = (weakref.ref(features), self.real.gaussian.estimate(features))
        return self._latest[1]

    def change(self, here: Columns, there: Columns) -> Estimate:
        """The distance here minus the distance there, over the same seeds line by line."""
        check_same_seeds(here, there)
        features = there["features"]
        if self._base is None or self._base[0]() is not features:
            self._base = (weakref.ref(features), self.real.gaussian.estimate(features))
        return self.estimate(here) - self._base[1]

    def qualities(self, columns: Columns) -> dict[str, Estimate]:
        return self.unseen.estimates(columns["features"])

    def floor_qualities(self, columns: Columns) -> dict[str, Estimate]:
        features = columns["features"]
        if not self.unseen.held_out:
            return self.unseen.estimates(features)
        return RealFeatures(features[1::2], device=self.unseen.device).estimates(features[::2])

    def facts(self) -> dict[str, Any]:
        both = (self.real.gaussian, self.unseen.gaussian)
        about = {
            "key": self.key,
            "label": self.extractor.label,
            "reference": self.real.gaussian.samples,
            "width": self.real.width,
            "real": text_hash(*(part.numpy().tobytes() for each in both for part in (each.mean, each.cov))),
            "unseen": self.unseen.gaussian.samples,
            "seen": self.unseen.seen,
            "held_out": self.unseen.held_out,
        }
        return {"quality": about, f"quality_{self.key}": about}

    def remember(self, folder: Path) -> None:
        self.real.save(_file(folder, self.name, self.fingerprint))
        unseen = _file(folder, self.name, self.fingerprint, UNSEEN)
        if self.unseen is not self.real:
            self.unseen.save(unseen)
        else:
            unseen.unlink(missing_ok=True)

    @classmethod
    def recalled(cls, folder: Path, fingerprint: str, **options: Any) -> FrechetDistance:
        """From mean, covariance and features in ``folder``; options: extractor, summaries."""
        name = options["extractor"].key
        real = RealFeatures.load(_file(folder, name, fingerprint))
        try:
            unseen = RealFeatures.load(_file(folder, name, fingerprint, UNSEEN))
        except FileNotFoundError:
            unseen = None
        return cls(reference=real, unseen=unseen, **options)


def _file(folder: Path, name: str, fingerprint: str, which: str = "") -> Path:
    return folder / f"{name}-{fingerprint}{which}.npz"


class FrechetMoments(Metric):
    """Fréchet distance from the moments of the samples' features alone: ``O(D^2)`` memory for any number of samples.

    States are float64 sums of ``x - m_r`` and its products, ``m_r`` the mean of the reference.

    Args:
        extractor, reference, read: as for ``FrechetDistance``.

    Raises:
        UserError: at ``update``, features of another width than the reference's; at ``compute``, fewer than two samples.

    Example:
        >>> import torch
        >>> from fm_lightning.metrics import RawFeatures
        >>> metric = FrechetMoments(RawFeatures(), torch.randn(1000, 2))
        >>> for _ in range(10):
        ...     metric.update(torch.randn(100, 2))
        >>> metric.compute()["fd_raw"] < 0.1
        True
    """

    is_differentiable = False
    full_state_update = False
    count: Tensor
    total: Tensor
    products: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Real,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.extractor: FeatureExtractor
        object.__setattr__(self, "extractor", extractor)  # shared, and no part of the metric
        self.reference, self.read = real_features(reference).gaussian, read
        width = len(self.reference.mean)
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("products", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, samples: Tensor | Trajectory) -> None:
        """Adds a batch ``[B, ...]``."""
        features = features_of(samples, self.extractor, self.read, len(self.total)).to(self.total.device)
        check_finite(features)
        centred = features.double() - self.reference.mean.to(features.device)
        self.count += len(features)
        self.total += centred.sum(0)
        self.products += centred.T @ centred

    def compute(self) -> dict[str, float]:
        n = int(self.count)
        if n < 2:
            raise UserError(f"{counted(n, 'sample')} cannot have a covariance.", "Use at least 2 samples.")
        shift = (self.total / n).cpu()
        cov = (self.products.cpu() - n * shift[:, None] * shift) / (n - 1)
        return {self.extractor.key: self.reference.distance(self.reference.mean + shift, cov)}


def real_features(reference: Real) -> RealFeatures:
    """The reference in any of its forms as RealFeatures."""
    if isinstance(reference, RealFeatures):
        return reference
    return RealFeatures(None, reference) if isinstance(reference, GaussianReference) else RealFeatures(reference)
