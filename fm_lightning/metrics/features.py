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
    """The samples themselves, flattened: for 2-D toys."""

    key = "fd_raw"
    label = "Fréchet distance (raw)"

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class DigitsFeatures(FeatureExtractor):
    """The 64 features of the shipped classifier of handwritten digits; samples ``[B, 1, 8, 8]`` in [-1, 1], unclipped."""

    key = "fd_digits"
    label = "Fréchet distance (digits features)"

    def __init__(self) -> None:
        super().__init__()
        self.classifier = DigitsClassifier.load()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(x.float())
