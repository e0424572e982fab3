"""Samples that are equal, byte for byte: repeated within a split, or shared between training and the other splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.hashes import tensor_bytes

BLOCK = 4096  # rows
PROBE = 64  # bytes of each row that are compared first


@dataclass(frozen=True)
class Copies:
    """Numbers of equal samples.

    Attributes:
        train: training samples that repeat an earlier one.
        held_out: held-out samples that repeat an earlier one.
        held_out_in_train: held-out samples that equal a training sample.
        real_in_train: real samples that equal a training sample.
    """

    train: int = 0
    held_out: int = 0
    held_out_in_train: int = 0
    real_in_train: int = 0

    def line(self, train: int, held_out: int, real: int | None) -> str:
        """A line for the user, empty if there is nothing to say.

        Args:
            train: number of training samples.
            held_out: number of held-out samples.
            real: number of real samples; None where they are the training samples by choice.
        """
        found = [
            (self.train, train, "training samples repeat others"),
            (self.held_out, held_out, "held-out samples repeat others"),
            (self.held_out_in_train, held_out, "held-out samples are training samples"),
            (self.real_in_train if real is not None else 0, real, "real samples are training samples"),
        ]
        said = [f"{count:,} of {n:,} {what}" for count, n, what in found if count]
        return f"Copies, byte for byte: {'; '.join(said)}." if said else ""


def count_copies(train: Tensor, held_out: Tensor, real: Tensor) -> tuple[Copies, np.ndarray]:
    """Compares the stored samples ``[n, ...]`` of three splits; also tells which real samples ``[m]`` are training samples.

    A few bytes from the middle of every row are compared first, and whole rows only where these are equal: of large
    memory-mapped files a fraction is read.
    """
    if share_memory(train, real):
        names, held_out_names = _names([max(train, real, key=len), held_out])
        train_names, real_names = names[: len(train)], names[: len(real)]
    else:
        train_names, held_out_names, real_names = _names([train, held_out, real])
    seen = np.isin(real_names, train_names)
    copies = Copies(
        train=len(train_names) - len(np.unique(train_names)),
        held_out=len(held_out_names) - len(np.unique(held_out_names)),
        held_out_in_train=int(np.isin(held_out_names, train_names).sum()),
        real_in_train=int(seen.sum()),
    )
    return copies, seen


def share_memory(a: Any, b: Any) -> bool:
    """Whether one tensor or array is the other, or its first rows."""
    address = [x.ctypes.data if isinstance(x, np.ndarray) else getattr(x, "data_ptr", lambda: None)() for x in (a, b)]
    return address[0] is not None and address[0] == address[1] and a.dtype == b.dtype and a.shape[1:] == b.shape[1:]


def _names(splits: Sequence[Tensor]) -> list[np.ndarray]:
    """``[n]`` int64 for each split: equal rows, and only these, have equal numbers."""
    probes = np.concatenate([_probes(x) for x in splits])
    _, names, counts = np.unique(probes, return_inverse=True, return_counts=True)
    names = names.astype(np.int64)
    known: dict[tuple[object, ...], int] = {}
    ends = np.cumsum([len(x) for x in splits])
    for i in np.flatnonzero(counts[names] > 1):
        which = int(np.searchsorted(ends, i, side="right"))
        row = splits[which][int(i) - int(ends[which])]
        digest = hashlib.blake2b(tensor_bytes(row)).digest()
        names[i] = known.setdefault((digest, row.dtype, row.shape), len(probes) + len(known))
    return np.split(names, ends[:-1])


def _probes(x: Tensor) -> np.ndarray:
    """``[n]`` some bytes from the middle of each row."""
    found = np.zeros((len(x), PROBE), np.uint8)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK].flatten(1).contiguous().view(torch.uint8)
        first = max(0, rows.shape[1] - PROBE) // 2
        some = rows[:, first : first + PROBE].cpu()
        found[start : start + len(rows), : some.shape[1]] = some.numpy()
    return found.view(f"S{PROBE}")[:, 0]
