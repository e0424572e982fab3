"""Metrics of trajectories: energy, memorization, Fréchet distance, support, semantics; usable without Lightning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Each name is loaded with its own module when it is first used, so that one metric does not wait for the imports of all.
_HOMES = {
    "ClassifierSemantics": "semantics",
    "ClipSemantics": "semantics",
    "DigitsFeatures": "features.extractor",
    "FeatureExtractor": "features.extractor",
    "FeatureSpace": "features.space",
    "FrechetDistance": "frechet_metrics",
    "FrechetMoments": "frechet_metrics",
    "GaussianReference": "frechet",
    "Groups": "neighbours.distinct",
    "KernelDistance": "mmd",
    "KernelReference": "mmd",
    "KineticPathEnergy": "energy",
    "LocalSupport": "support",
    "Measure": "measure",
    "MemorizationRate": "memorization",
    "RawFeatures": "features.extractor",
    "RealFeatures": "real_features",
    "Reference": "neighbours.reference",
    "ShardedReference": "neighbours.sharded",
    "extrapolated_distance": "extrapolated",
    "find_groups": "neighbours.distinct",
    "frechet_distance": "frechet",
    "kernel_distance": "mmd",
    "moments": "feature_moments",
    "nearest": "neighbours.search",
    "nearest_distinct": "neighbours.distinct",
}

if TYPE_CHECKING:
    from fm_lightning.metrics.energy import KineticPathEnergy
    from fm_lightning.metrics.extrapolated import extrapolated_distance
    from fm_lightning.metrics.feature_moments import moments
    from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
    from fm_lightning.metrics.features.space import FeatureSpace
    from fm_lightning.metrics.frechet import GaussianReference, frechet_distance
    from fm_lightning.metrics.frechet_metrics import FrechetDistance, FrechetMoments
    from fm_lightning.metrics.measure import Measure
    from fm_lightning.metrics.memorization import MemorizationRate
    from fm_lightning.metrics.mmd import KernelDistance, KernelReference, kernel_distance
    from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, nearest_distinct
    from fm_lightning.metrics.neighbours.reference import Reference
    from fm_lightning.metrics.neighbours.search import nearest
    from fm_lightning.metrics.neighbours.sharded import ShardedReference
    from fm_lightning.metrics.real_features import RealFeatures
    from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics
    from fm_lightning.metrics.support import LocalSupport

__all__ = [
    "ClassifierSemantics",
    "ClipSemantics",
    "DigitsFeatures",
    "FeatureExtractor",
    "FeatureSpace",
    "FrechetDistance",
    "FrechetMoments",
    "GaussianReference",
    "Groups",
    "KernelDistance",
    "KernelReference",
    "KineticPathEnergy",
    "LocalSupport",
    "Measure",
    "MemorizationRate",
    "RawFeatures",
    "RealFeatures",
    "Reference",
    "ShardedReference",
    "extrapolated_distance",
    "find_groups",
    "frechet_distance",
    "kernel_distance",
    "moments",
    "nearest",
    "nearest_distinct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
