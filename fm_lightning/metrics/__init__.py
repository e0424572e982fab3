"""Metrics of trajectories: energy, memorization, Fréchet distance; usable without Lightning."""

from fm_lightning.metrics.energy import KineticPathEnergy
from fm_lightning.metrics.features import DigitsFeatures, FeatureExtractor, RawFeatures
from fm_lightning.metrics.frechet import FrechetDistance, GaussianReference, frechet_distance
from fm_lightning.metrics.moments import moments
from fm_lightning.metrics.intervals import Change, paired_share_change, wilson
from fm_lightning.metrics.memorization import MemorizationRate
from fm_lightning.metrics.neighbours import nearest
from fm_lightning.metrics.reference import Reference

__all__ = [
    "Change",
    "DigitsFeatures",
    "FeatureExtractor",
    "FrechetDistance",
    "GaussianReference",
    "KineticPathEnergy",
    "MemorizationRate",
    "RawFeatures",
    "Reference",
    "frechet_distance",
    "moments",
    "nearest",
    "paired_share_change",
    "wilson",
]
