"""Exact Euclidean nearest neighbours in bounded memory.

A matrix product finds the candidates: with rows a and b, rounded and shifted as the product sees them,

    | d(a, b)^2 - (|a|^2 + |b|^2 - 2 ab) |  <=  e (|a|^2 + |b|^2),     e about 2 D 2^-24 in float32

whatever the order of summation (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1, and
``2|a||b| <= |a|^2 + |b|^2``). That difference loses all digits where d is small, which is where copies are found; so it
only rules rows out, those whose lower bound exceeds an upper bound of the k-th distance. The distances of all others
are computed by subtraction in float64 from the rows as they are stored. A query with more candidates than expected is
compared with the whole block in that way: slower, equally exact.

Neighbours are ordered by the float32 distance that is returned, then by index; hence answers do not depend on blocks
and shards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.reference import BUDGET, Reference, check_shape, max_rows, squared_norms

MARGIN = 14  # candidates kept in a block beyond the k wanted before the whole block is compared


@torch.no_grad()
def nearest(queries: Tensor, reference: Reference | Any, k: int, *, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the reference for every query.

    Args:
        queries: ``[Q, ...]`` on any device.
        reference: ``[N, ...]`` a :class:`Reference`, or what one is made of. Keep a Reference between calls.
        k: number of neighbours, 1 to N.
        budget: bytes of memory used beside arguments, results and the Reference, independent of Q and N.

    Returns:
        distances ``[Q, k]`` float32, ascending, and indices ``[Q, k]`` int64, equal distances by ascending index; on
        the queries' device. Distances are correct to float32 rounding, also near zero.

    Raises:
        UserError: k outside 1 to N, rows of different sizes, a row that is not finite (it is named), an empty
            reference, or a budget too small for one row.

    Example:
        >>> nearest(torch.tensor([[0.0]]), torch.tensor([[3.0], [-1.0], [1.0]]), k=2)
        (tensor([[1., 1.]]), tensor([[1, 2]]))
    """
    check_shape("queries", queries)
    reference = reference if isinstance(reference, Reference) else Reference(reference, budget=budget)
    check_match(queries, reference)
    if not 1 <= k <= len(reference):
        raise UserError(
            f"k = {k} neighbours of a reference of {len(reference)} rows: give k from 1 to {len(reference)}"
        )
    tile = _Tile(reference, len(queries), k, budget)
    distances = torch.empty(len(queries), k, device=queries.device)
    indices = torch.empty(len(queries), k, device=queries.device, dtype=torch.int64)
    with torch.autocast(reference.device.type, enabled=False):  # it would round the products unasked
        for start in range(0, len(queries), tile.queries):
            block = slice(start, start + tile.queries)
            part = queries[block].detach().to(reference.device)
            distances[block], indices[block] = tile.search(part.reshape(len(part), -1), start)
    return distances, indices


def merge(distances: Sequence[Tensor], indices: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k nearest among the answers of several shards of a reference: exactly what the whole would have answered.

    Args:
        distances: per shard ``[Q, k_s]`` float32 from :func:`nearest`, ``k_s = min(k, rows of the shard)``.
        indices: per shard ``[Q, k_s]`` int64, already counted in the whole reference, ascending with the shard's own.
        k: number of neighbours wanted, at most the sum of all ``k_s``.

    Returns:
        ``[Q, k]`` distances and ``[Q, k]`` indices, as :func:`nearest` orders them.
    """
    if sum(d.shape[1] for d in distances) < k:
        raise UserError(f"k = {k} neighbours of {sum(d.shape[1] for d in distances)} candidates: give a smaller k")
    ids, order = torch.cat(list(indices), 1).sort(dim=1)
    near, best = torch.cat(list(distances), 1).gather(1, order).sort(dim=1, stable=True)
    return near[:, :k].contiguous(), ids.gather(1, best[:, :k])


def check_match(queries: Tensor, reference: Reference) -> None:
    """Raises UserError unless the rows of both sides have the same shape (one of them may be flat)."""
    mine, theirs = tuple(queries.shape[1:]), reference.shape[1:]
    if math.prod(mine) != reference.size or (mine != theirs and len(mine) > 1 and len(theirs) > 1):
        raise UserError(f"queries have rows of shape {list(mine)}, the reference {list(theirs)}: give the same shape")


class _Tile:
    """Sizes of the blocks on both sides, and the search of one block of queries."""

    def __init__(self, reference: Reference, count: int, k: int, budget: int) -> None:
        self.reference, self.k = reference, k
        # Bytes for a query (shifted in float64, then float32, its rounded copy; its candidates), for a reference row
        # (its copy, if any; its part in sorting a whole block) and, twice, for their score.
        size, width, wide = reference.size, k + MARGIN, reference.dtype.itemsize
        query = size * (16 + wide) + 160 * width + 128
        row = (size * (4 + 2 * wide) if reference.copies else 0) + 128
        least = max(2 * (query + row + 8), 4 * (32 * size + 64))
        max_rows(budget, least, "query and reference")
        half, self.rest = budget // 2, budget // 4  # the rest is for distances by subtraction
        some = min(max(1, count), max(1, half // 2 // query))
        self.queries = -(-count // -(-count // some)) if count else 1  # blocks of equal size
        self.rows = min(len(reference), (half - self.queries * query) // (row + 8 * self.queries))
        self.scores = torch.empty(self.queries * self.rows, device=reference.device)

    def search(self, queries: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """``[q, k]`` distances and indices for the ``[q, D]`` queries, of which the first is called row ``start``."""
        reference, k = self.reference, self.k
        a = reference.centred(queries)
        a2 = squared_norms("query", a, start)
        a, error = _operand(a, a2, reference)
        low_a, high_a = a2 * (1 - error) - reference.size * 2.0**-120, a2 * (1 + error)  # the power: underflow
        near = torch.full((len(a), k), torch.inf, device=a.device)
        index = torch.zeros((len(a), k), device=a.device, dtype=torch.int64)
        for begin in range(0, len(reference), self.rows):
            stored = reference.rows(begin, begin + self.rows)
            b2 = reference.norms[begin : begin + self.rows]
            # scores + low_a <= d^2 <= scores + high_a + 2 error b2
            scores = self.scores[: len(a) * len(b2)].view(len(a), len(b2))
            b = reference.centred(stored) if a.dtype == torch.float32 else stored
            _scores(a, b, b2 * (1 - error), scores)

            rows = (scores.amin(1) + low_a <= near[:, -1].square()).nonzero()[:, 0]
            if not len(rows):
                continue
            low, column = (scores[rows] if len(rows) < len(a) else scores).topk(min(k + MARGIN, len(b2)), largest=False)
            limit = near[rows, -1].square()
            if low.shape[1] >= k:
                high = low[:, :k] + high_a[rows, None] + 2 * error * b2[column[:, :k]]
                limit = torch.minimum(limit, high.amax(1))
            keep = low + low_a[rows, None] <= limit[:, None]
            crowded = keep[:, -1] & (low.shape[1] < len(b2))

            i, j = (keep & ~crowded[:, None]).nonzero(as_tuple=True)
            exact = torch.full_like(low, torch.inf)
            exact[i, j] = self._pairs(queries, stored, rows[i], column[i, j])
            near[rows], index[rows] = merge([near[rows], exact], [index[rows], column + begin], k)
            self._crowded(queries, stored, rows[crowded], begin, near, index)
        return near, index

    def _pairs(self, a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """``[p]`` distances of the rows ``a[i]`` from the rows ``b[j]``."""
        step = self.rest // (32 * a.shape[1] + 64)
        parts = [_distances(a[i_][:, None], b[j_][:, None]) for i_, j_ in zip(i.split(step), j.split(step))]
        return torch.cat([part.flatten() for part in parts]) if parts else a.new_empty(0, dtype=torch.float32)

    def _crowded(self, a: Tensor, b: Tensor, rows: Tensor, begin: int, near: Tensor, index: Tensor) -> None:
        """Compares the rows ``a[rows]`` with the whole block ``b``, whose first row is called ``begin``."""
        some = max(1, self.rest // 2 // (64 * len(b) + 16 * a.shape[1]))
        step = max(1, self.rest // 2 // (8 * a.shape[1] + 8 * some))
        ids = torch.arange(begin, begin + len(b), device=b.device)
        for r in rows.split(some):
            exact = torch.cat([_distances(a[r], part) for part in b.split(step)], 1)
            near[r], index[r] = merge([near[r], exact], [index[r], ids.expand_as(exact)], self.k)


def _operand(a: Tensor, a2: Tensor, reference: Reference) -> tuple[Tensor, float]:
    """The queries as the product takes them, and e of the module's docstring."""
    kind = reference.device.type
    # Tensor cores truncate sums where the processor rounds; D + 18 covers the additions, the shift and the square root.
    unit = 2.0**-24 if kind == "cpu" else 2.0**-22
    terms = (2 * reference.size + 36) * unit
    error = terms / (1 - terms) if terms < 0.5 else 1.0
    if reference.dtype in (torch.bfloat16, torch.float16) and reference.shift is None:
        # Only the queries lose digits: |ab - a'b| <= |a - a'| |b|.
        rounded = a.to(reference.dtype)
        loss = float((torch.linalg.vector_norm(a - rounded, dim=1) / a2.sqrt()).nan_to_num(0.0, torch.inf).max())
        if loss < 2.0**-6:
            return rounded, error + 1.01 * loss
    backend = torch.backends.cuda if kind == "cuda" else torch.backends.mkldnn
    # What the user allows products of float32 to be rounded to (torch.set_float32_matmul_precision).
    loss = {"tf32": 2.0**-10, "bf16": 2.0**-8}.get(backend.matmul.fp32_precision, 0.0)
    return a, error + 2.02 * loss


def _scores(a: Tensor, b: Tensor, bias: Tensor, out: Tensor) -> None:
    """``bias - 2 a b^T`` into ``out``, float32 [q, n]."""
    if a.dtype != torch.float32 and a.is_cuda:
        torch.add(bias, torch.mm(a, b.T, out_dtype=torch.float32), alpha=-2, out=out)
    else:
        torch.addmm(bias, a.float(), b.float().T, alpha=-2, out=out)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """``[..., q, n]`` float32 distances by subtraction, summed in float64, the same for a pair in whatever company."""
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
