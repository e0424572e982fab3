"""Rows that lie in several memory-mapped tensors, indexed like one tensor; only what is asked for is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Rows:
    """``[n, ...]`` the rows of tensors of one type and row shape, one after another.

        rows[3:7]   rows[torch.tensor([5, 0])]   # tensors in memory
        rows.part(10, 20)   rows + others        # again rows, nothing is read

    Args:
        tensors: at least one, each ``[n_i, ...]``, on the CPU.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self._stops = np.cumsum([len(tensor) for tensor in tensors])
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
            raise IndexError(f"rows {index.min()} to {index.max()} asked for, there are {len(self)}")
        index = index % len(self)
        out = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        # Each tensor is asked once, and for ascending rows: neighbours on disk are read together.
        order = np.argsort(index, kind="stable")
        ascending = index[order]
        cuts = np.searchsorted(ascending, self._stops)
        start = 0
        for i in np.flatnonzero(np.diff(cuts, prepend=0)):
            here = slice(start, cuts[i])
            local = ascending[here] - (self._stops[i] - len(self.tensors[i]))
            out[torch.from_numpy(order[here])] = self.tensors[i][torch.from_numpy(local)]
            start = cuts[i]
        return out

    def part(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, ``0 <= start <= stop <= n``."""
        begins = self._stops - [len(tensor) for tensor in self.tensors]
        cut = [
            tensor[max(start - begin, 0) : max(stop - begin, 0)] for tensor, begin in zip(self.tensors, begins.tolist())
        ]
        return Rows([tensor for tensor in cut if len(tensor)] or cut[:1])

    def __add__(self, other: Rows) -> Rows:
        return Rows([*self.tensors, *other.tensors])
