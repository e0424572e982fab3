"""The rows that others are compared with, prepared once: norms, centre and the blocks in which they are read.

    r = Reference(images)            # a tensor, or a numpy array, memory-mapped or not; nothing is copied
    r = Reference(pixels, encode=f)  # the rows are f(pixels), computed block by block when they are read
    nearest(queries, r, k=2)         # as often as needed

Rows are read one block at a time, so that the reference may be larger than the memory of the device.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.duplicates import first_of_equal, row_digests

BUDGET = 256 * 2**20  # bytes
LARGEST = 1e37  # squared norms above this would overflow float32 on the way to a distance


class Reference:
    """N rows of D numbers, read in blocks; the data stay where they are.

    Args:
        data: ``[N, ...]`` a tensor (float64, float32, bfloat16, float16 or integers, on any device), or a
            numpy array, memory-mapped or not; or what has a tensor's shape, dtype and device and is indexed like one,
            read from disk only then. Rows are flattened when they are read.
        device: where the computation happens; default: where the data are.
        budget: bytes that preparing may use in addition to the data and ``4 N`` bytes for the norms.
        encode: rows as stored ``[n, ...]`` -> the rows to compare with, of the same shape; elementwise, so that rows may be
            read in any blocks.

    Attributes:
        shift: ``[D]`` float32, subtracted from both sides before products are taken, or None. Distances
            stay the same, but the rounding errors of products grow with the norms: far from the origin
            nothing of a distance would be left.
        norms: ``[N]`` float32, the squared norms of the shifted rows.

    Raises:
        UserError: no rows, rows without numbers, complex numbers, or a row that is not finite (it is named).
    """

    def __init__(
        self,
        data: Any,
        *,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.encode = encode
        indexed = isinstance(getattr(data, "dtype", None), torch.dtype)
        self.data = data.detach() if isinstance(data, Tensor) else data if indexed else np.asanyarray(data)
        check_shape("reference", self.data)
        if not len(self.data):
            raise UserError("The reference is empty.", "Pass at least one row.")
        self.shape = tuple(self.data.shape)
        self.size = math.prod(self.shape[1:])
        self.device = torch.device(device or (self.data.device if isinstance(data, Tensor) else "cpu"))
        self.dtype = self.rows(0, 1).dtype
        block = max_rows(budget, self.size * 32, "reference")
        self.shift = self._find_shift(min(block, 4096))
        norms = torch.empty(len(self), device=self.device)
        for start in range(0, len(self), block):
            rows = self.rows(start, start + block)
            norms[start : start + block] = squared_norms("reference", self.centred(rows), start)
        self.norms = norms
        self._first: dict[bool, Tensor] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> Tensor:
        """``[n, D]`` rows start to stop, on the device."""
        part = self._read(slice(start, stop)).to(self.device)
        return (self.encode(part) if self.encode else part).reshape(len(part), self.size)

    def take(self, index: Tensor) -> Tensor:
        """``[n, ...]`` the rows of these indices, on the device, in the shape they came in."""
        part = self._read(index).to(self.device)
        return self.encode(part) if self.encode else part

    def _read(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            part = self.data[rows.to(self.data.device) if isinstance(self.data, Tensor) else rows.cpu().numpy()]
        else:
            part = self.data[rows]
        if not isinstance(part, Tensor):
            # Copied, because a memory-mapped array may be read-only, which tensors cannot be.
            copy = torch.empty(part.shape, dtype=torch.from_numpy(np.empty(0, part.dtype)).dtype)
            copy.numpy()[...] = part
            part = copy
        return part

    def digests(self, mirrored: bool = False) -> np.ndarray:
        """``[N]`` of 16 bytes each: hashes of the rows as they are stored (see ``row_digests``)."""
        step = max(1, 2**24 // self.size)
        blocks = (self._read(slice(start, start + step)) for start in range(0, len(self), step))
        return np.concatenate([row_digests(block, mirrored) for block in blocks])

    def exact_duplicates(self, mirrored: bool = False) -> Tensor:
        """``[N]`` int64: for each row the index of the first that equals it, as stored; kept."""
        if mirrored not in self._first:
            self._first[mirrored] = first_of_equal(self.digests(mirrored))
        return self._first[mirrored]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the rows, their order, type and shape, and with what ``encode`` makes of the first of them."""
        return content_fingerprint(self.shape, self.digests(), self.probe())

    def probe(self) -> tuple[str, bytes]:
        """The type of the stored rows, and the first row as it is compared."""
        return str(self._read(slice(0, 1)).dtype), row_digests(self.rows(0, 1)).tobytes()

    def centred(self, rows: Tensor) -> Tensor:
        """``[n, D]`` float32; wider numbers are shifted before they are rounded."""
        rows = rows.double() if rows.dtype in (torch.int32, torch.int64) else rows
        return rows.float() if self.shift is None else (rows - self.shift).float()

    @property
    def copies(self) -> bool:
        """Whether reading a block and shifting it takes memory of its own."""
        stays = isinstance(self.data, Tensor) and self.data.is_contiguous() and self.data.device == self.device
        return not (stays and self.encode is None and self.dtype == torch.float32 and self.shift is None)

    def _find_shift(self, count: int) -> Tensor | None:
        step = -(-len(self) // count)
        sample = self._read(slice(None, None, step))
        sample = self.encode(sample) if self.encode else sample
        sample = sample.reshape(len(sample), self.size).float()
        mean = sample.mean(0)
        # Rows off the origin only: shifting costs a copy of every block.
        if not (sample - mean).square_().sum() < 0.5 * sample.square().sum():
            return None
        return mean.to(self.device)


class AbstractReference(ABC):
    """A reference whose rows lie with several processes, which search it together (see ``sharded``)."""

    shape: tuple[int, ...]
    size: int

    @abstractmethod
    def nearest(self, queries: Tensor, k: int, *, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
        """What ``neighbours.nearest`` returns for this process's queries."""

    @abstractmethod
    def exact_duplicates(self, mirrored: bool = False) -> Tensor:
        """What ``Reference.exact_duplicates`` of the whole returns."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """That of a ``Reference`` of the whole."""

    def __len__(self) -> int:
        return self.shape[0]


def content_fingerprint(shape: tuple[int, ...], digests: np.ndarray, probe: tuple[str, bytes]) -> str:
    """16 hexadecimal digits for rows of this shape, their digests ``[N]`` in order, and a ``probe`` of the first."""
    return hashlib.sha256(repr((shape, probe)).encode() + digests.tobytes()).hexdigest()[:16]


def check_shape(name: str, data: Tensor | np.ndarray) -> None:
    """Raises UserError unless ``data`` is ``[N, ...]`` with real numbers in its rows."""
    shape = list(data.shape)
    if not shape or 0 in shape[1:]:
        raise UserError(f"The {name} have shape {shape}.", "Pass [rows, ...] with at least one number in a row.")
    if data.dtype.is_complex if isinstance(data.dtype, torch.dtype) else data.dtype.kind not in "fiub":
        raise UserError(f"The {name} have type {data.dtype}.", "Convert them to real numbers, for example float32.")


def check_match(queries: Tensor, reference: Reference | AbstractReference) -> None:
    """Raises UserError unless the rows of both sides have the same shape (one of them may be flat)."""
    mine, theirs = tuple(queries.shape[1:]), reference.shape[1:]
    if math.prod(mine) != reference.size or (mine != theirs and len(mine) > 1 and len(theirs) > 1):
        raise UserError(
            f"The queries have rows of shape {list(mine)} and the reference of {list(theirs)}.",
            "Bring both to the same shape.",
        )


def check_unit(samples: Tensor, reference: Reference | AbstractReference) -> None:
    """Raises UserError if bytes would be compared with numbers in another unit, where nothing is near anything.

    A reference that is divided among processes checks by itself: one process alone must not refuse while others wait.
    """
    if isinstance(reference, Reference) and (reference.dtype == torch.uint8) != (samples.dtype == torch.uint8):
        raise UserError(
            f"The samples are {samples.dtype} and the reference is {reference.dtype}.",
            "Bring both into the model's space, for example with images.float() / 127.5 - 1.",
        )


def check_k(k: int, rows: int) -> None:
    """Raises UserError unless a reference of so many rows has k neighbours to give."""
    if not 1 <= k <= rows:
        raise UserError(
            f"k={k} must be from 1 to {rows}, the rows of the reference.", f"Pass k={min(max(k, 1), rows)}."
        )


def squared_norms(name: str, rows: Tensor, start: int) -> Tensor:
    """``[n]`` float32 from ``[n, D]`` float32; raises UserError that names the row which is not finite."""
    few = rows.split(max(1, 2**19 // rows.shape[1]))  # float64 copies that stay in the cache
    norms = torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64).square_() for part in few])
    bad = ~(norms <= LARGEST)
    if bad.any():
        row = int(bad.nonzero()[0])
        if rows[row].isfinite().all():
            raise UserError(
                f"{name.capitalize()} row {start + row} is too large for float32 squares.",
                f"Rescale the data to squared norms of at most {LARGEST:g}.",
            )
        raise UserError(f"{name.capitalize()} row {start + row} contains NaN or infinity.", "Remove it.")
    return norms.float()


def max_rows(budget: int, cost: int, name: str) -> int:
    """How many rows of ``cost`` bytes fit into the budget; raises UserError if none does."""
    if budget < cost:
        raise UserError(f"budget={budget} bytes are too few for one {name} row.", f"Pass budget={cost}.")
    return budget // cost


def tile(budget: int, count: int, query: int, row: int, pair: int) -> tuple[int, int]:
    """How many of ``count`` queries and how many rows fit together; bytes for one of each and for a pair."""
    most = max(1, min(count, budget // 2 // query))
    queries = max(1, -(-count // -(-count // most))) if count else 1  # blocks of equal size
    return queries, (budget - queries * query) // (row + pair * queries)
