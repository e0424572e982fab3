"""Splits of latents: fetched from disk when a batch asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.data.latents.rows import Rows


@dataclass(frozen=True)
class LatentSplit:
    """Posterior means as stored, with their labels; read when they are fetched."""

    x: Rows  # [n, c, h, w]
    y: Tensor | None = None  # [n] int64

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[index], None if self.y is None else self.y[index]


@dataclass(frozen=True)
class PosteriorSplit(LatentSplit):
    """Training latents: fetches what a sample of the posterior is drawn from."""

    moments: tuple[Rows, ...] = ()  # mean, std and, if mirrored ones are drawn, theirs; each [n, c, h, w]

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[b, 2 or 4, c, h, w]`` and the labels."""
        return torch.stack([rows[index] for rows in self.moments], 1), None if self.y is None else self.y[index]
