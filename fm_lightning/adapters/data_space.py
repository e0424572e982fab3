"""DataSpace: what the numbers of a network's samples mean, as plain data that travel with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError

UNIT = "[-1, 1]"  # pixels as images: 127.5 (x + 1)


@dataclass(frozen=True)
class DataSpace:
    """The space of a network's samples.

    Attributes:
        shape: of one sample.
        name: the space in words, for example "[-1, 1]".
        num_classes: number of classes; 0 for none.
        class_names: in the order of the labels, where they are known.
        pixels: "[-1, 1]" where samples are images in that range; empty otherwise.
        autoencoder: the name of the autoencoder whose latents they are; empty otherwise.
        shift, factor: the latents are ``x / factor + shift``, one number per channel.
    """

    shape: tuple[int, ...]
    name: str = ""
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    pixels: str = ""
    autoencoder: str = ""
    shift: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()

    def labels(self, n: int) -> Tensor | None:
        """``[n]`` int64 labels, all classes in turn; None without classes."""
        return torch.arange(n) % self.num_classes if self.num_classes else None

    def to_uint8(self, x: Tensor) -> Tensor:
        """Samples as pixels ``[B, C, H, W]`` uint8, rounded and clamped.

        Raises:
            UserError: samples that are no images.
        """
        if self.autoencoder:
            raise UserError(
                f"Samples are latents of {self.autoencoder}, not images.", "Decode latents(x) with that autoencoder."
            )
        if self.pixels != UNIT:
            raise UserError("Samples of this network have no pixels.", "Use them as they are.")
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def latents(self, x: Tensor) -> Tensor:
        """Samples ``[B, c, h, w]`` as the autoencoder's own latents.

        Raises:
            UserError: samples that are no latents.
        """
        if not self.autoencoder:
            raise UserError("Samples of this network are no latents.", "Use them as they are.")
        shift, factor = (x.new_tensor(values)[:, None, None] for values in (self.shift, self.factor))
        return x / factor + shift

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DataSpace:
        """The space with these fields.

        Raises:
            TypeError, ValueError: they are none.
        """
        wrong = [name for name in content if name not in {field.name for field in fields(cls)}]
        if wrong or not isinstance(content["shape"], list):
            raise ValueError(f"the space has {wrong[0]}" if wrong else "the space has no shape")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return cls(**given)
