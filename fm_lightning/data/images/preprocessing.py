"""From an image file to pixels: resize the shorter side, crop the centre, drop the colour; in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

from fm_lightning.errors import UserError

_GRAY = {"1", "L", "LA", "La"}
_DEEP = ("I", "F")  # more than 8 bits a channel


@dataclass(frozen=True)
class Preprocessing:
    """PIL image -> ``[C, H, W]`` uint8; torchvision's ``Resize``, ``CenterCrop`` and ``Grayscale`` on PIL images.

    Args:
        resize: pixels of the shorter side (bilinear, antialiased); None keeps the size.
        crop: side of the square cut from the centre; None keeps all.
        grayscale: one channel instead of three; None: as the first image is.
    """

    resize: int | None = None
    crop: int | None = None
    grayscale: bool | None = None

    def __post_init__(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} given, expected at least 1 pixel; type --data.init_args.{name} 32")

    def __call__(self, image: Image.Image) -> np.ndarray:
        if image.mode.startswith(_DEEP):
            raise UserError(
                f"images of PIL mode {image.mode} given, expected 8 bits a channel; convert them to 8-bit files first"
            )
        # Palettes have no brightness of their own: colour first, gray at the end.
        image = image.convert("L" if self.grayscale and is_gray(image) else "RGB")
        if self.resize is not None:
            image = F.resize(image, [self.resize])
        if self.crop is not None:
            if min(image.size) < self.crop:
                raise UserError(
                    f"crop={self.crop} given for an image of {image.width}x{image.height}, expected at most its size; type "
                    f"--data.init_args.resize {self.crop} as well"
                )
            image = F.center_crop(image, [self.crop])
        if self.grayscale:
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image).transpose(2, 0, 1)


def is_gray(image: Image.Image) -> bool:
    """Whether the image has no colour channels."""
    return image.mode in _GRAY
