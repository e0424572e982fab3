"""Rows of several memory-mapped tensors, indexed like one tensor, of which only indexed rows are read; and their split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.split import Split


class Rows:
    """The rows ``[n, ...]`` of tensors of one type and row shape, one after another.

        rows[3:7]   rows[torch.tensor([5, 0])]   # tensors in memory
        rows.part(10, 20)   rows + others        # again rows, nothing is read

    Args:
        tensors: at least one, contiguous, each ``[n_i, ...]``, on the CPU.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        sizes = [len(tensor) for tensor in tensors]
        self._stops = np.cumsum(sizes)
        self._begins = self._stops - sizes
        self._bytes = [_bytes(tensor) for tensor in tensors]
        self.shape = (int(self._stops[-1]), *tensors[0].shape[1:])
        self.dtype, self.device = tensors[0].dtype, tensors[0].device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | np.ndarray | slice) -> Tensor:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return torch.cat(self.part(start, stop).tensors)
            index = np.arange(start, stop, step)
        index = index.cpu().numpy() if isinstance(index, Tensor) else index
        if len(index) and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        index = index % len(self)
        out = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        which = np.searchsorted(self._stops, index, side="right")
        within = index - self._begins[which]
        # Row by row, as bytes: indexing a tensor of half precision takes eight times as long as copying.
        for row, i, j in zip(_bytes(out), which.tolist(), within.tolist()):
            row[...] = self._bytes[i][j]
        return out

    def part(self, start: int, stop: int) -> Rows:
        """Returns rows ``start`` to ``stop``, with ``0 <= start <= stop <= n``."""
        begins = self._begins.tolist()
        cut = [tensor[max(start - begin, 0) : max(stop - begin, 0)] for tensor, begin in zip(self.tensors, begins)]
        return Rows([tensor for tensor in cut if len(tensor)] or cut[:1])

    def __add__(self, other: Rows) -> Rows:
        return Rows([*self.tensors, *other.tensors])


def _bytes(tensor: Tensor) -> np.ndarray:
    """Returns a view ``[n, b]`` uint8 of the same memory: NumPy has no bfloat16."""
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:])).view(torch.uint8).numpy()


@dataclass(frozen=True)
class PosteriorSplit(Split):
    """Training latents: fetches the moments of the posteriors."""

    moments: tuple[Rows, ...] = ()  # mean, std and, with flips, those of mirror images; each [n, c, h, w]

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns moments ``[b, 2 or 4, c, h, w]`` and labels."""
        return torch.stack([rows[index] for rows in self.moments], 1), None if self.y is None else self.y[index]
