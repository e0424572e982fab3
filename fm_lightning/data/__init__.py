"""Data: what a model is trained on, what its samples are compared with, and the seeds that they start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.data.batches import HeldOutBatch, SeedBatch, TrainBatch
from fm_lightning.data.labels import seed_labels
from fm_lightning.data.samples import Samples
from fm_lightning.data.split import Split
from fm_lightning.lazy import lazy
from fm_lightning.noise import noise

if TYPE_CHECKING:
    from fm_lightning.data.datamodules import CIFAR10, CelebA, Digits, FlowData, ImageData, Latents, Toy2D, Unknown

__all__ = [
    "CIFAR10",
    "CelebA",
    "Digits",
    "FlowData",
    "HeldOutBatch",
    "ImageData",
    "Latents",
    "Samples",
    "SeedBatch",
    "Split",
    "Toy2D",
    "TrainBatch",
    "Unknown",
    "noise",
    "seed_labels",
]

# All at once, so that the command knows every data set by its short name.
__getattr__ = lazy(__name__, __file__)
