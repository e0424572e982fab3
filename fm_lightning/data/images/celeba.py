"""CelebA as in the memorization experiments of arXiv 2602.07928: 32x32, gray, few images, zero mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.data.images.image_data import ImageData


class CelebA(ImageData):
    """CelebA faces (Liu et al. 2015): shorter side to 32 pixels, centre crop, gray; [0, 1] minus the training images' mean.

    The mean is one number, taken over the n training images; nothing is scaled, so that energies are about four times
    smaller than in [-1, 1]. Samples are compared with test images, and validation images are held out.

    Args:
        source: see ``ImageData``; the aligned images, 178x218.
        n: number of training images, the first of ``train_part``.
        real_part, resize, crop, grayscale: see ``ImageData``.
        kwargs: arguments of ``ImageData``; ``held_out_part`` is by default the validation split.
    """

    space = "[0, 1] minus mean"
    held_out_names = ("valid", "validation", "val")

    def __init__(
        self,
        source: str | dict[str, str] = "flwrlabs/celeba",
        n: int | None = 1024,
        real_part: str | None = "test",
        resize: int | None = 32,
        crop: int | None = 32,
        grayscale: bool | None = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, n=n, real_part=real_part, resize=resize, crop=crop, grayscale=grayscale, **kwargs)

    def load(self) -> None:
        super().load()
        blocks = self.train_split.x.split(1000)  # integers: a sum of any order and size is exact
        total = sum(int(block.sum(dtype=torch.int64)) for block in blocks)
        self.mean = total / self.train_split.x.numel() / 255

    def encode(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).div_(255).sub_(self.mean)

    def decode(self, x: Tensor) -> Tensor:
        return (x + self.mean) * 2 - 1

    def to_uint8(self, x: Tensor) -> Tensor:
        return ((x + self.mean) * 255).round_().clamp_(0, 255).to(torch.uint8)
