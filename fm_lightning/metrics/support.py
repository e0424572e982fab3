"""Local support: how densely training (or other real) samples lie around a generated one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.density import nearest_with_kernel_sums
from fm_lightning.metrics.neighbours.reference import Reference, check_unit
from fm_lightning.metrics.neighbours.search import nearest
from fm_lightning.metrics.per_seed import PerSeedMetric
from fm_lightning.trajectory import Trajectory

ASKED = 256  # reference rows whose nearest neighbour sets the bandwidth's unit


class LocalSupport(PerSeedMetric):
    """k-nearest-neighbour support and Gaussian kernel log-density of each sample, over the whole reference in one pass.

        knn_{k} = -(d1 + ... + dk) / k          kde_{b} = log 1/N sum_n N(x; x_n, h^2 I),   h = b * unit

    in the space's unit, and in nats. The bandwidth's unit is the median distance of a reference row to its nearest other one,
    over 256 rows evenly spaced through the reference: with ``b = 1`` a typical neighbour has weight ``exp(-1/2)``. Distances are
    exact; log densities are correct to 0.02 (largest error seen: 3.8e-4). ``summarize`` returns each column's mean and median.

    Args:
        reference: ``[n, ...]`` real samples in the space where samples are compared, or a ``Reference`` of them.
        k: numbers of neighbours, each from 1 to n.
        bandwidths: factors b, each above 0.
        space: brings samples to the reference's space; None compares them as they are.

    Raises:
        UserError: k or a bandwidth out of range, or a reference whose unit is 0 because half its rows are copies of others.

    Example:
        >>> metric = LocalSupport(torch.tensor([[0.0], [1.0], [3.0]]), k=(2,), bandwidths=())
        >>> metric.measure(torch.tensor([[0.0], [4.0]]))["knn_2"]
        tensor([-0.5000, -2.0000])
    """

    name = "support"

    def __init__(
        self,
        reference: Tensor | Reference,
        k: Sequence[int] = (5, 20),
        bandwidths: Sequence[float] = (0.5, 1.0, 2.0),
        space: FeatureSpace | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__([*(f"knn_{i}" for i in k), *(f"kde_{b:g}" for b in bandwidths)], **kwargs)
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.space, self.k, self.bandwidths = space or FeatureSpace(), tuple(k), tuple(bandwidths)
        n = len(self.reference)
        if not k or not all(1 <= i <= n for i in k):
            raise UserError(
                f"k={list(k)} must be numbers from 1 to {n}, the reference's size.", "Pass, for example, k=[5]."
            )
        if not all(b > 0 and math.isfinite(b) for b in bandwidths):
            raise UserError(f"bandwidths={list(bandwidths)} must be positive.", "Pass, for example, bandwidths=[1.0].")
        self.unit = self._find_unit() if bandwidths else 1.0

    def _find_unit(self) -> float:
        n = len(self.reference)
        if n < 2:
            raise UserError("One reference sample sets no bandwidth.", "Pass a larger reference, or bandwidths=[].")
        few = self.reference.take(torch.arange(0, n, -(-n // ASKED)))
        unit = float(nearest(few, self.reference, 2)[0][:, 1].median())
        if unit == 0:
            raise UserError(
                "Half the reference's samples have an exact copy, so the bandwidth would be 0.",
                "Remove the copies, or pass bandwidths=[].",
            )
        return unit

    @property
    def fingerprint(self) -> str:
        return text_hash(self.reference.fingerprint, self.space.fingerprint, self.k, self.bandwidths)

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``knn_{k}`` and ``kde_{b}``, ``[B]`` each."""
        x = self.space(samples, self.reference.size)
        check_unit(x, self.reference)
        h = [b * self.unit for b in self.bandwidths]
        distances, _, sums = nearest_with_kernel_sums(x, self.reference, max(self.k), h)
        columns = {f"knn_{k}": -distances[:, :k].mean(1) for k in self.k}
        for b, width, column in zip(self.bandwidths, h, sums.unbind(1)):
            constant = math.log(len(self.reference)) + self.reference.size / 2 * math.log(2 * math.pi * width**2)
            columns[f"kde_{b:g}"] = column - constant
        return columns

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        values = {name: v.double() for name, v in columns.items() if name.startswith(("knn_", "kde_"))}
        means = {f"{name}_mean": float(v.mean()) for name, v in values.items()}
        return means | {f"{name}_median": float(v.median()) for name, v in values.items()}

    @classmethod
    def recalled(cls, folder: Path, fingerprint: str, **options: Any) -> LocalSupport:
        """Summaries need the columns alone."""
        metric = cls.__new__(cls)
        PerSeedMetric.__init__(metric, ())
        return metric
