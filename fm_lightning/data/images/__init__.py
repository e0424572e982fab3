"""Images: any Hugging Face dataset, folder or parquet file, decoded once."""

from fm_lightning.data.images.celeba import CelebA
from fm_lightning.data.images.image_data import CIFAR10, ImageData

__all__ = ["CIFAR10", "CelebA", "ImageData"]
