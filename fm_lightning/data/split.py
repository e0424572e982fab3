"""Split: samples as stored, with their labels; and the model's view of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Samples as stored, with their labels; NumPy arrays are taken as tensors when the datamodule is set up."""

    x: Tensor  # [n, ...]
    y: Tensor | None = None  # [n] int64

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[index], None if self.y is None else self.y[index]


@dataclass(frozen=True)
class Encoded:
    """Stored samples in the model's space, encoded as they are read: 50 000 CIFAR images are 150 MB so, not 600."""

    stored: Tensor  # [n, ...]
    encode: Callable[[Tensor], Tensor]
    order: Tensor | None = None  # [n] int64, the row served at each place; None: as stored

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


def content_hash(*tensors: Tensor | None) -> str:
    """Names tensors ``[n, ...]`` by their bytes, shapes and types; read in blocks, 1 to 2 GB a second."""
    found = hashlib.sha256()
    for x in tensors:
        found.update(repr(None if x is None else (x.dtype, x.shape)).encode())
        for block in () if x is None else x.split(4096):
            found.update(block.cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
