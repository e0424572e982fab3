"""Data: what is trained on, what samples are compared with, and the seeds that they start from."""

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import HeldOutBatch, SeedBatch, TrainBatch
from fm_lightning.data.digits import Digits
from fm_lightning.data.images.celeba import CelebA
from fm_lightning.data.images.image_data import CIFAR10, ImageData
from fm_lightning.data.labels import seed_labels
from fm_lightning.data.latents import Latents
from fm_lightning.data.split import Split
from fm_lightning.data.toys import Toy2D
from fm_lightning.data.unknown import Unknown
from fm_lightning.noise import noise

__all__ = [
    "CIFAR10",
    "CelebA",
    "Digits",
    "FlowData",
    "HeldOutBatch",
    "ImageData",
    "Latents",
    "SeedBatch",
    "Split",
    "Toy2D",
    "TrainBatch",
    "Unknown",
    "noise",
    "seed_labels",
]
