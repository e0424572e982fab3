"""From an image file to pixels: fill the background, resize the shorter side, crop the centre, drop the colour; in this order."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps
from torchvision.transforms import functional as F

from fm_lightning.errors import UserError

_GRAY = {"1", "L", "LA", "La"}


@dataclass(frozen=True)
class Preprocessing:
    """PIL image -> ``[C, H, W]`` uint8; torchvision's ``Resize``, ``CenterCrop`` and ``Grayscale`` on PIL images.

    Transparent images are laid on the background first, because pixels under alpha 0 are noise in many files. Of animations
    the first frame is used. CMYK becomes RGB by Pillow's formula, without colour profiles. Images with more than 8 bits per
    channel are refused: which values are black and white is not known, and Pillow would keep the high byte.

    Args:
        resize, crop, grayscale, background, adm_crop: see ``ImageData``.
    """

    resize: int | None = None
    crop: int | None = None
    grayscale: bool | None = None
    background: str = "white"
    adm_crop: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop), ("adm_crop", self.adm_crop)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1 pixel.", f"Set for example {name}: 32")
        if not _is_colour(self.background):
            raise UserError(
                f"background={self.background!r} is no colour.", "Set for example background: white, or '#808080'"
            )
        if self.adm_crop is not None and (self.resize is not None or self.crop is not None):
            raise UserError("adm_crop replaces resize and crop.", "Leave resize and crop out.")

    def __call__(self, image: Image.Image) -> np.ndarray:
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
                raise UserError(
                    f"crop={self.crop} is larger than an image of {image.width}x{image.height}.",
                    f"Set resize: {self.crop} too.",
                )
            image = F.center_crop(image, [self.crop])
        if self.grayscale:
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image).transpose(2, 0, 1)

    def _opaque(self, image: Image.Image) -> Image.Image:
        """Returns RGB of any mode: palettes have no brightness of their own, and gray comes at the end."""
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, self.background), image)
        return image.convert("RGB")


def read_image(encoded: bytes, name: str) -> Image.Image:
    """Decodes an image file and turns it upright by its EXIF orientation.

    Args:
        encoded: the bytes of the file.
        name: name of the image, for messages.

    Raises:
        UserError: more than 8 bits per channel.
    """
    image = Image.open(BytesIO(encoded))
    # Pillow keeps the high byte of 16-bit colours; only the layout of the file shows it.
    layouts = [tile[3] for tile in image.tile]
    scaled = image.format == "PPM" and any(isinstance(args, tuple) and args[-1] > 255 for args in layouts)
    if scaled or ";16" in repr(layouts) or image.mode.startswith(("I", "F")):
        raise UserError(
            f"Image {name} has more than 8 bits per channel.",
            "Convert such files to 8 bits first, from the range that their values have.",
        )
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation) else image


def adm_crop(image: Image.Image, side: int) -> Image.Image:
    """Returns the centre square as ADM, DiT and SiT prepare ImageNet (Dhariwal & Nichol 2021), for comparison with them.

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
