"""Feature extractors for Fréchet distances: modules ``[B, ...] -> [B, D]`` that carry the name of their distance.

A Fréchet distance on other features than Inception's is never called FID.
"""

from __future__ import annotations

from torch import Tensor, nn

from fm_lightning.metrics.digits import DigitsClassifier


class FeatureExtractor(nn.Module):
    """``key`` names the distance in logs, ``label`` in tables."""

    key: str
    label: str


class RawFeatures(FeatureExtractor):
    """The samples themselves, flattened: for 2-D toys, and for images without any weights.

    Args:
        pool: average images over squares of this side first, so that a few thousand samples give a full-rank covariance.
            Averaging hides fine noise: such a distance does not see what a schedule leaves of it.
    """

    key = "fd_raw"
    label = "Fréchet distance (raw)"

    def __init__(self, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        if pool > 1:
            self.key, self.label = f"fd_pool{pool}", f"Fréchet distance (pixels averaged {pool}x{pool})"

    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.avg_pool2d(x, self.pool) if self.pool > 1 else x).flatten(1)


class DigitsFeatures(FeatureExtractor):
    """The 64 features of the shipped classifier of handwritten digits; samples ``[B, 1, 8, 8]`` in [-1, 1], unclipped."""

    key = "fd_digits"
    label = "Fréchet distance (digits features)"

    def __init__(self) -> None:
        super().__init__()
        self.classifier = DigitsClassifier.load()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(x.float())
