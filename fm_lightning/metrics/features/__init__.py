"""Feature extractors: image -> feature vector. The distance measured on them carries their name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.lazy import lazy

if TYPE_CHECKING:
    from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
    from fm_lightning.metrics.features.dinov2 import DinoFeatures
    from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, ModuleFeatures, RawFeatures
    from fm_lightning.metrics.features.inception import InceptionFeatures, PytorchFIDFeatures, SpatialInceptionFeatures

__all__ = [
    "ClipFeatures",
    "CmmdFeatures",
    "DigitsFeatures",
    "DinoFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "ModuleFeatures",
    "PytorchFIDFeatures",
    "RawFeatures",
    "SpatialInceptionFeatures",
]

# Loaded when first used: the pretrained networks import torch-fidelity.
__getattr__ = lazy(__name__, __file__)
