"""From an image file to pixels: fill the background, resize the shorter side, crop the centre, drop the colour; in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor
from torchvision.transforms import functional as F

from fm_lightning.errors import UserError

_GRAY = {"1", "L", "LA", "La"}
_DEEP = ("I", "F")  # more than 8 bits a channel


@dataclass(frozen=True)
class Preprocessing:
    """PIL image -> ``[C, H, W]`` uint8; torchvision's ``Resize``, ``CenterCrop`` and ``Grayscale`` on PIL images.

    What else files may hold: pixels under alpha 0 are noise in many of them, so that whatever is transparent is laid on the
    background before anything else; of animations the first frame is taken; ``datasets`` has turned photographs upright
    (EXIF); CMYK becomes RGB by Pillow's formula, without colour profiles; colour PNGs of 16 bits have been rounded down to 8
    by Pillow; gray ones of 16 bits and floating-point TIFFs have no brightness that all agree on and are refused.

    Args:
        resize: pixels of the shorter side (bilinear, antialiased); None keeps the size.
        crop: side of the square cut from the centre; None keeps all.
        grayscale: one channel instead of three; None: as the first image is.
        background: what shows where an image is transparent: a colour's name or "#rrggbb".
    """

    resize: int | None = None
    crop: int | None = None
    grayscale: bool | None = None
    background: str = "white"

    def __post_init__(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} given, expected at least 1 pixel; type {name}: 32")
        if not _is_colour(self.background):
            raise UserError(
                f"background={self.background!r} given, expected a colour; type e.g. background: white, black or '#808080'"
            )

    def __call__(self, image: Image.Image) -> np.ndarray:
        if image.mode.startswith(_DEEP):
            raise UserError(
                f"images of PIL mode {image.mode} given, expected 8 bits a channel; convert them to 8-bit files first"
            )
        gray = is_gray(image)
        image = self._opaque(image)
        if self.grayscale and gray:
            image = image.convert("L")
        if self.resize is not None:
            image = F.resize(image, [self.resize])
        if self.crop is not None:
            if min(image.size) < self.crop:
                raise UserError(
                    f"crop={self.crop} given for an image of {image.width}x{image.height}, expected at most its size; type "
                    f"resize: {self.crop} as well"
                )
            image = F.center_crop(image, [self.crop])
        if self.grayscale:
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image).transpose(2, 0, 1)

    def _opaque(self, image: Image.Image) -> Image.Image:
        """RGB, whatever it was: palettes have no brightness of their own, and gray comes at the end."""
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, self.background), image)
        return image.convert("RGB")


def is_gray(image: Image.Image) -> bool:
    """Whether the image has no colour channels."""
    return image.mode in _GRAY


def _is_colour(name: str) -> bool:
    try:
        return len(ImageColor.getrgb(name)) == 3  # with a fourth it would be transparent itself
    except ValueError:
        return False
