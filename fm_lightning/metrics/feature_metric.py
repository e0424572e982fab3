"""FeatureMetric: a metric of samples' features, which it keeps per seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.space import as_read, reader_name
from fm_lightning.metrics.per_seed import PerSeedMetric, sample_tensor
from fm_lightning.trajectory import Trajectory


class FeatureMetric(PerSeedMetric):
    """Each sample passes through the extractor once; every number is computed from the features kept here.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; its attribute ``key`` names the number.
        width: D, the number of features, from which a process without samples knows the shape of its state.
        read: brings samples into the space that the extractor reads, for example a datamodule's ``to_uint8``.

    Raises:
        UserError: at ``update``, features of another width.
    """

    extractor: FeatureExtractor

    def __init__(
        self, extractor: FeatureExtractor, width: int, read: Callable[[Tensor], Tensor] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(("features",), **kwargs)
        # Kept out of the module tree: many metrics share one extractor, and none of them owns it.
        object.__setattr__(self, "extractor", extractor)
        self.width, self.read = width, read

    @property
    def name(self) -> str:  # type: ignore[override]
        """The columns belong to the extractor, whichever numbers follow from them."""
        return self.extractor.key

    @property
    def key(self) -> str:  # type: ignore[override]
        """The number's name, for example ``fid`` or ``fd_digits``."""
        return self.extractor.key

    @property
    def fingerprint(self) -> str:
        return text_hash(self.extractor.fingerprint, reader_name(self.read))

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``features`` ``[B, D]`` as the extractor gives them."""
        return {"features": features_of(samples, self.extractor, self.read, self.width)}


@torch.no_grad()
def features_of(
    samples: Tensor | Trajectory, extractor: FeatureExtractor, read: Callable[[Tensor], Tensor] | None, width: int
) -> Tensor:
    """``[B, width]`` features of samples ``[B, ...]`` in the model's space; no network is run without samples.

    Raises:
        UserError: features of another width.
    """
    x = sample_tensor(samples)
    if not len(x):
        return torch.zeros(0, width, device=x.device)
    features = extractor(as_read(x, read))
    if features.shape[1:] != (width,):
        raise UserError(
            f"{extractor.key} gives features of shape {list(features.shape[1:])}, and the reference has {width}.",
            "Compute both with the same extractor.",
        )
    return features
