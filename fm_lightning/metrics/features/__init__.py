"""Feature extractors: image -> feature vector. The distance measured on them carries their name."""

from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
from fm_lightning.metrics.features.dinov2 import DinoFeatures
from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, ModuleFeatures, RawFeatures
from fm_lightning.metrics.features.inception import (
    InceptionFeatures,
    PytorchFIDFeatures,
    SpatialInceptionFeatures,
)

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
