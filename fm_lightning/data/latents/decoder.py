"""Decoder: the model's space to images, a bounded batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.pixels import pixels
from fm_lightning.errors import OldError


class Decoder:
    """``x [B, c, h, w] -> images [B, C, H, W]``, of latents ``z = x / factor + shift``.

    Args:
        autoencoder: whose latents they are.
        shape: ``(c, h, w)``.
        shift: one number, or one for each channel.
        factor: likewise.
        batch: latents decoded at a time.

    Attributes:
        image_shape: ``[C, H, W]``.

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
            said = " ".join(str(error).split())[:120]
            raise OldError(
                f"autoencoder={autoencoder.name} given for latents of {list(shape)} ({said})",
                "one that decodes them",
                "give the one that encoded them",
            ) from error

    def __call__(self, x: Tensor) -> Tensor:
        """Images as the autoencoder makes them, about [-1, 1]."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape)
        return torch.cat([self._decode(part) for part in x.split(self.batch)])

    def to_uint8(self, x: Tensor) -> Tensor:
        """Rounded and clamped; no more than a batch of them is in memory otherwise."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape, dtype=torch.uint8)
        return torch.cat([pixels(self._decode(part)) for part in x.split(self.batch)])

    def _decode(self, x: Tensor) -> Tensor:
        shift, factor = self.shift.to(x.device), self.factor.to(x.device)
        return self.autoencoder.to(x.device).decode(x.float() / factor + shift)


def per_channel(values: float | list[float] | Tensor, channels: int) -> Tensor:
    """``[c, 1, 1]`` float32."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return values if values.ndim == 3 else values.expand(channels).clone()[:, None, None]
