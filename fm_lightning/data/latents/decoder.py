"""Decoder: from the model's space to images, in batches of bounded size."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.latents.manifest import Manifest
from fm_lightning.data.pixels import pixels
from fm_lightning.errors import UserError


class Decoder:
    """Maps ``x [B, c, h, w]`` to images ``[B, C, H, W]``, by decoding latents ``z = x / factor + shift``.

    Args:
        autoencoder: the autoencoder of the latents.
        shape: the shape ``(c, h, w)`` of a latent.
        shift: one number, or one per channel.
        factor: one number, or one per channel.
        batch: number of latents decoded at a time.

    Attributes:
        image_shape: the shape ``[C, H, W]`` of an image.

    Raises:
        UserError: an autoencoder that cannot decode latents of this shape.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        shape: tuple[int, ...],
        shift: float | list[float] | Tensor,
        factor: float | list[float] | Tensor,
        batch: int,
    ) -> None:
        self.autoencoder, self.batch = autoencoder, batch
        self.shift, self.factor = per_channel(shift, shape[0]), per_channel(factor, shape[0])
        try:
            self.image_shape = list(autoencoder.decode(torch.zeros(1, *shape)).shape[1:])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"autoencoder={autoencoder.name} cannot decode latents of {list(shape)} ({reason}).",
                "Use the one that encoded them.",
            ) from error

    def __call__(self, x: Tensor) -> Tensor:
        """Returns images ``[B, C, H, W]``, about [-1, 1]."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape)
        return torch.cat([self._decode(part) for part in x.split(self.batch)])

    def to_uint8(self, x: Tensor) -> Tensor:
        """Returns images ``[B, C, H, W]`` uint8, rounded and clamped; only one batch is in memory as float32."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape, dtype=torch.uint8)
        return torch.cat([pixels(self._decode(part)) for part in x.split(self.batch)])

    def _decode(self, x: Tensor) -> Tensor:
        shift, factor = self.shift.to(x.device), self.factor.to(x.device)
        return self.autoencoder.to(x.device).decode(x.float() / factor + shift)


def per_channel(values: float | list[float] | Tensor, channels: int) -> Tensor:
    """Returns ``[c, 1, 1]`` float32."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return values if values.ndim == 3 else values.expand(channels).clone()[:, None, None]


def scales(manifest: Manifest, scaling: str) -> tuple[Tensor, Tensor]:
    """Returns shift and factor ``[c, 1, 1]`` of the model's space ``(z - shift) * factor``.

    Args:
        manifest: of the stored latents z.
        scaling: "autoencoder" or "channels"; see ``Latents``.
    """
    channels = manifest.shape[0]
    if scaling == "channels":
        return per_channel(manifest.channel_mean, channels), 1 / per_channel(manifest.channel_std, channels)
    return per_channel(manifest.shift, channels), per_channel(manifest.factor, channels)
