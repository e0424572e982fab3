"""Splits of latents, read from disk batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.data.latents.rows import Rows


@dataclass(frozen=True)
class LatentSplit:
    """Stored posterior means with their labels."""

    x: Rows  # [n, c, h, w]
    y: Tensor | None = None  # [n] int64

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[index], None if self.y is None else self.y[index]


@dataclass(frozen=True)
class PosteriorSplit(LatentSplit):
    """Training latents: fetches the moments of the posteriors."""

    moments: tuple[Rows, ...] = ()  # mean, std and, with flips, those of mirror images; each [n, c, h, w]

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns moments ``[b, 2 or 4, c, h, w]`` and labels."""
        return torch.stack([rows[index] for rows in self.moments], 1), None if self.y is None else self.y[index]
