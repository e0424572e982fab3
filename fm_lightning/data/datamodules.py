"""The data sets as LightningDataModules; importing this imports Lightning."""

from __future__ import annotations

from fm_lightning.data.base import FlowData
from fm_lightning.data.digits import Digits
from fm_lightning.data.images.celeba import CelebA
from fm_lightning.data.images.image_data import CIFAR10, ImageData
from fm_lightning.data.latents.latents import Latents
from fm_lightning.data.toys import Toy2D
from fm_lightning.data.unknown import Unknown

__all__ = ["CIFAR10", "CelebA", "Digits", "FlowData", "ImageData", "Latents", "Toy2D", "Unknown"]
