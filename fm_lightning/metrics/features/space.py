"""FeatureSpace: where samples are compared, as they are or as an extractor's features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.per_seed import fingerprint, sample_tensor
from fm_lightning.trajectory import Trajectory


class FeatureSpace:
    """Samples -> rows ``[B, D]``.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; None: the samples themselves, flattened.
        read: brings samples into what the extractor reads, e.g. a datamodule's ``to_uint8``.
    """

    def __init__(
        self, extractor: FeatureExtractor | None = None, read: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.extractor, self.read = extractor, read

    @property
    def fingerprint(self) -> str:
        """Changes whenever the rows do."""
        read = None if self.read is None else getattr(self.read, "__qualname__", type(self.read).__qualname__)
        return fingerprint(None if self.extractor is None else self.extractor.fingerprint, read)

    @torch.no_grad()
    def __call__(self, samples: Tensor | Trajectory, width: int) -> Tensor:
        """``[B, width]``; also of no samples, which no network is asked about.

        Raises:
            UserError: rows of another width.
        """
        x = sample_tensor(samples)
        if not len(x):
            return torch.zeros(0, width, device=x.device)
        x = x if self.read is None else self.read(x)
        rows = (x if self.extractor is None else self.extractor(x)).flatten(1)
        if rows.shape[1] != width:
            raise OldError(
                f"samples of {rows.shape[1]} numbers given",
                f"the reference's {width}",
                "bring both into the same space",
            )
        return rows
