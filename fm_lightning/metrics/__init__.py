"""Metrics of trajectories: energy, memorization, Fréchet distance, support, semantics; usable without Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.lazy import lazy

if TYPE_CHECKING:
    from fm_lightning.metrics.energy import KineticPathEnergy
    from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
    from fm_lightning.metrics.features.space import FeatureSpace
    from fm_lightning.metrics.frechet import GaussianReference, extrapolated_distance, frechet_distance, moments
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

# Loaded when first used: one metric does not wait for the imports of all.
__getattr__ = lazy(__name__, __file__)
