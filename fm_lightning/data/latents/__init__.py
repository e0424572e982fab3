"""Latents of an autoencoder: images encoded once, then trained on from disk."""

from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.latents.encode import encode_images
from fm_lightning.data.latents.latents import Latents

__all__ = ["Autoencoder", "Latents", "encode_images"]
