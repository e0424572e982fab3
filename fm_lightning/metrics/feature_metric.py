"""FeatureMetric: a metric of samples' features, which it keeps per seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.metrics.features import FeatureExtractor
from fm_lightning.metrics.per_seed import PairedMetric
from fm_lightning.trajectory import Trajectory


class FeatureMetric(PairedMetric):
    """Each sample goes through the extractor once; whatever is computed later reads the features kept here.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the number. The samples
            (``trajectory.x1``) have to lie in the space that it reads (``extractor.space``).
        width: D, the number of features: a process without samples still has to give its state a shape.
    """

    columns = ("features",)
    extractor: FeatureExtractor

    def __init__(self, extractor: FeatureExtractor, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Kept out of the module tree: many metrics share one extractor, and none of them owns it.
        object.__setattr__(self, "extractor", extractor)
        self.width = width

    @property
    def key(self) -> str:
        """The number's name, e.g. ``fid`` or ``fd_digits``."""
        return self.extractor.key

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of samples."""
        x = trajectory.x1
        empty = torch.zeros(0, self.width, device=x.device)
        self.append(trajectory, features=self.extractor(x) if len(x) else empty)

    def features(self) -> tuple[Tensor, Tensor]:
        """Seeds ``[n]`` and features ``[n, D]`` over all processes, on the CPU, ascending in the seed.

        Gathered anew at each call and not kept, because the features of all rows together may be more than the host's
        memory. Every process has to call it.
        """
        with self.sync_context():
            rows = self.local()
        return rows["seeds"], rows["features"]
