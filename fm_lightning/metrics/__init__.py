"""Metrics of trajectories: energy, memorization, Fréchet distance, support, semantics; usable without Lightning."""

from fm_lightning.metrics.energy import KineticPathEnergy
from fm_lightning.metrics.extrapolated import extrapolated_distance
from fm_lightning.metrics.feature_moments import moments
from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.frechet import FrechetDistance, GaussianReference, frechet_distance
from fm_lightning.metrics.intervals import Change, paired_share_change, wilson
from fm_lightning.metrics.kernel_distance import KernelDistance, KernelReference, kernel_distance
from fm_lightning.metrics.memorization import MemorizationRate
from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, nearest_distinct
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest
from fm_lightning.metrics.neighbours.sharded import ShardedReference
from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics
from fm_lightning.metrics.support import LocalSupport

__all__ = [
    "Change",
    "ClassifierSemantics",
    "ClipSemantics",
    "DigitsFeatures",
    "FeatureExtractor",
    "FeatureSpace",
    "FrechetDistance",
    "GaussianReference",
    "Groups",
    "KernelDistance",
    "KernelReference",
    "KineticPathEnergy",
    "LocalSupport",
    "MemorizationRate",
    "RawFeatures",
    "Reference",
    "ShardedReference",
    "extrapolated_distance",
    "find_groups",
    "frechet_distance",
    "kernel_distance",
    "moments",
    "nearest",
    "nearest_distinct",
    "paired_share_change",
    "wilson",
]
