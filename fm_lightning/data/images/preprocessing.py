"""From an image file to pixels: fill the background, resize the shorter side, crop the centre, drop the colour; in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor
from torchvision.transforms import functional as F

from fm_lightning.errors import OldError

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
        adm_crop: side of the square that :func:`adm_crop` cuts, instead of ``resize`` and ``crop``.
    """

    resize: int | None = None
    crop: int | None = None
    grayscale: bool | None = None
    background: str = "white"
    adm_crop: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop), ("adm_crop", self.adm_crop)):
            if value is not None and value < 1:
                raise OldError(f"{name}={value} given", "at least 1 pixel", f"type {name}: 32")
        if not _is_colour(self.background):
            raise OldError(
                f"background={self.background!r} given", "a colour", "type e.g. background: white, black or '#808080'"
            )
        if self.adm_crop is not None and (self.resize is not None or self.crop is not None):
            raise OldError(
                f"adm_crop={self.adm_crop} given with resize={self.resize} and crop={self.crop}",
                "one or the other",
                "leave resize and crop out",
            )

    def __call__(self, image: Image.Image) -> np.ndarray:
        if image.mode.startswith(_DEEP):
            raise OldError(
                f"PIL mode {image.mode} given",
                "8 bits a channel",
                "convert such files to 8 bits first, from the range that their values have",
            )
        gray = is_gray(image)
        image = self._opaque(image)
        if self.grayscale and gray:
            image = image.convert("L")
        if self.adm_crop is not None:
            image = adm_crop(image, self.adm_crop)
        if self.resize is not None:
            image = F.resize(image, [self.resize])
        if self.crop is not None:
            if min(image.size) < self.crop:
                raise OldError(
                    f"crop={self.crop} given for an image of {image.width}x{image.height}",
                    "at most its size",
                    f"type resize: {self.crop} as well",
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


def adm_crop(image: Image.Image, side: int) -> Image.Image:
    """The centre square as ADM, DiT and SiT prepare ImageNet (Dhariwal & Nichol 2021): what their figures are compared on.

    Halved by averaging 2 x 2 pixels while the shorter side is at least twice ``side``, then resized to it (bicubic), then
    cut from the centre, the odd pixel off the right and the bottom.
    """
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def is_gray(image: Image.Image) -> bool:
    """Whether the image has no colour channels."""
    return image.mode in _GRAY


def _is_colour(name: str) -> bool:
    try:
        return len(ImageColor.getrgb(name)) == 3  # with a fourth it would be transparent itself
    except ValueError:
        return False
