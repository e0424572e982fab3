"""FeatureMetric: a metric of samples' features, which it keeps per seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.per_seed import PairedMetric
from fm_lightning.trajectory import Trajectory


class FeatureMetric(PairedMetric):
    """Each sample goes through the extractor once; whatever is computed later reads the features kept here.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the number.
        width: D, the number of features: a process without samples still has to give its state a shape.
        read: brings samples into the space that the extractor reads, e.g. a datamodule's ``to_uint8``.

    Raises:
        UserError: at ``update``, features of another width.
    """

    columns = ("features",)
    extractor: FeatureExtractor

    def __init__(
        self,
        extractor: FeatureExtractor,
        width: int,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Kept out of the module tree: many metrics share one extractor, and none of them owns it.
        object.__setattr__(self, "extractor", extractor)
        self.width, self.read = width, read

    @property
    def key(self) -> str:
        """The number's name, e.g. ``fid`` or ``fd_digits``."""
        return self.extractor.key

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of samples."""
        x = trajectory.x1
        if not len(x):
            self.append(trajectory, features=torch.zeros(0, self.width, device=x.device))
            return
        features = self.extractor(self.read(x) if self.read else x)
        if features.shape[1:] != (self.width,):
            raise UserError(
                f"{self.key}: features {list(features.shape[1:])} per sample found, expected the reference's {self.width}; "
                "make the statistics with the same extractor"
            )
        self.append(trajectory, features=features)

    def features_by_seed(self) -> Tensor:
        """``[n, D]`` over all processes, on the CPU, ascending in the seed.

        Gathered anew at each call and not kept, because the features of all rows together may be more than the host's
        memory. Every process has to call it.
        """
        with self.sync_context():
            return self.local()["features"]
