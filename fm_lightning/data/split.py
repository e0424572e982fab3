"""Split: stored samples with their labels, and their encoding for the model: of pixels, to [-1, 1] and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_lightning.hashes import tensor_bytes


@dataclass(frozen=True)
class Split:
    """Stored samples with their labels; NumPy arrays become tensors when the data are prepared."""

    x: Any  # [n, ...] a tensor, or what is indexed like one
    y: Tensor | None = None  # [n] int64

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[index], None if self.y is None else self.y[index]


@dataclass(frozen=True)
class Encoded:
    """Stored samples, encoded when they are read: 50,000 CIFAR images take 150 MB, not 600."""

    stored: Tensor  # [n, ...]
    encode: Callable[[Tensor], Tensor]
    order: Tensor | None = None  # [n] int64, the row at each place; None: as stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.encode(self.stored[index if self.order is None else self.order[index]])

    @property
    def device(self) -> torch.device:
        return self.stored.device

    def split(self, size: int) -> Iterator[Tensor]:
        """The samples in blocks of ``size``, like ``Tensor.split``."""
        return (self[start : start + size] for start in range(0, len(self), size))


def unit_pixels(x: Tensor) -> Tensor:
    """Maps uint8 pixels to float32 in [-1, 1]."""
    return x.to(torch.float32).div_(127.5).sub_(1)


def pixels(x: Tensor) -> Tensor:
    """Maps [-1, 1] to uint8 pixels, rounded to nearest and clamped."""
    return ((x + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def content_hash(*tensors: Tensor | None) -> str:
    """Returns a hash of tensors ``[n, ...]``, their shapes and types; read in blocks, at 1 to 2 GB/s."""
    found = hashlib.sha256()
    for x in tensors:
        found.update(repr(None if x is None else (x.dtype, x.shape)).encode())
        for block in () if x is None else x.split(4096):
            found.update(tensor_bytes(block))
    return found.hexdigest()[:16]
