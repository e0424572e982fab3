"""FeatureMetric: a metric of samples' features, which it keeps per seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.per_seed import PairedMetric, fingerprint, sample_tensor
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

    extractor: FeatureExtractor

    def __init__(
        self,
        extractor: FeatureExtractor,
        width: int,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(("features",), **kwargs)
        # Kept out of the module tree: many metrics share one extractor, and none of them owns it.
        object.__setattr__(self, "extractor", extractor)
        self.width, self.read = width, read

    @property
    def key(self) -> str:
        """The number's name, e.g. ``fid`` or ``fd_digits``."""
        return self.extractor.key

    @property
    def fingerprint(self) -> str:
        read = None if self.read is None else getattr(self.read, "__qualname__", repr(type(self.read)))
        return fingerprint(self.extractor.fingerprint, read)

    @torch.no_grad()
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``features`` ``[B, D]`` as the extractor gives them."""
        x = sample_tensor(samples)
        if not len(x):
            return {"features": torch.zeros(0, self.width, device=x.device)}
        features = self.extractor(self.read(x) if self.read else x)
        if features.shape[1:] != (self.width,):
            raise OldError(
                f"{self.key}: features {list(features.shape[1:])} per sample found",
                f"the reference's {self.width}",
                "make the statistics with the same extractor",
            )
        return {"features": features}
