"""Feature extractors: image -> feature vector. The distance measured on them carries their name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Loaded when first used: the pretrained networks import torch-fidelity.
_HOMES = {
    "ClipFeatures": "clip",
    "CmmdFeatures": "clip",
    "DigitsFeatures": "extractor",
    "DinoFeatures": "dinov2",
    "FeatureExtractor": "extractor",
    "InceptionFeatures": "inception",
    "ModuleFeatures": "extractor",
    "PytorchFIDFeatures": "inception",
    "RawFeatures": "extractor",
    "SpatialInceptionFeatures": "inception",
}

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
