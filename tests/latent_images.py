"""Small images with classes, and a small autoencoder."""

from __future__ import annotations

import torch
from torch import nn

from fm_lightning.data import FlowData
from fm_lightning.data.latents import Autoencoder
from fm_lightning.data.split import Split, pixels, unit_pixels

SHARD = 8


class Images(FlowData):
    """Random uint8 images [3, 8, 12]; compared with the training images unless told otherwise."""

    class_names = ("a", "b", "c")

    def __init__(self, seed=0, train=21, held_out=5, real=None, num_classes=3, shape=(3, 8, 12)):
        super().__init__()
        self.given, self.num_classes, self.shape = (seed, train, held_out, real), num_classes, shape

    def load(self):
        seed, *counts = self.given
        generator = torch.Generator().manual_seed(seed)

        def split(n):
            x = torch.randint(0, 256, (n, *self.shape), generator=generator, dtype=torch.uint8)
            return Split(x, torch.arange(n) % self.num_classes if self.num_classes else None)

        train, held_out, real = counts
        self.train_split, self.held_out_split = split(train), split(held_out)
        self.real_split = self.train_split if real is None else split(real)

    def encode(self, x):
        return unit_pixels(x)

    def to_uint8(self, x):
        return pixels(x)


class TinyNetwork(nn.Module):
    """Halves each side; a posterior whose standard deviation depends on the image."""

    def __init__(self, channels=4, seed=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.down = nn.Conv2d(3, 2 * channels, 3, stride=2, padding=1)
            self.up = nn.ConvTranspose2d(channels, 3, 2, stride=2)
        self.decoded: list[int] = []

    def encode(self, images):
        mean, logvar = self.down(images).chunk(2, 1)
        return mean, (0.5 * logvar - 2).exp()

    def decode(self, latents):
        self.decoded.append(len(latents))
        return self.up(latents).tanh()


def images(**options):
    data = Images(**options)
    data.setup()
    return data


def tiny(**options):
    return Autoencoder(TinyNetwork(**options), name="tiny", factor=0.5, shift=[0.1, 0.2, 0.3, 0.4])
