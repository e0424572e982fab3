"""Exact Euclidean nearest neighbours in bounded memory.

A matrix product finds the candidates: with rows a and b, rounded and shifted as the product sees them,

    | d(a, b)^2 - (|a|^2 + |b|^2 - 2 ab) |  <=  e (|a|^2 + |b|^2),     e about 2 D 2^-24 in float32

whatever the order of summation (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1, and
``2|a||b| <= |a|^2 + |b|^2``). That difference loses all digits where d is small, which is where copies are
found; so it only rules rows out, those whose lower bound exceeds an upper bound of the k-th distance. The
distances of all others are computed by subtraction in float64 from the rows as they are stored. Where
thousands of rows are too alike for the product, that is thousands of subtractions: slower, equally exact.

Neighbours are ordered by the float32 distance that is returned, then by index; hence answers do not depend on
blocks and shards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.reference import (
    BUDGET,
    Reference,
    check_match,
    check_shape,
    max_rows,
    squared_norms,
    tile,
)

GROUP = 16  # scores of which only the minimum is compared with others at first
MARGIN = 14  # candidates expected in a block beyond the k wanted; a query that has more gets a longer list


@torch.no_grad()
def nearest(queries: Tensor, reference: Reference | Any, k: int, *, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the reference for every query.

    Args:
        queries: ``[Q, ...]`` on any device.
        reference: ``[N, ...]`` a :class:`Reference`, or what one is made of. Keep a Reference between calls.
        k: number of neighbours, 1 to N.
        budget: bytes of memory used beside arguments, results and the Reference, independent of Q and N.

    Returns:
        distances ``[Q, k]`` float32, ascending, and indices ``[Q, k]`` int64, equal distances by ascending
        index; on the queries' device. Distances are correct to float32 rounding, also near zero.

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
    search = _Search(reference, len(queries), k, budget)
    distances = torch.empty(len(queries), k, device=queries.device)
    indices = torch.empty(len(queries), k, device=queries.device, dtype=torch.int64)
    with torch.autocast(reference.device.type, enabled=False):  # it would round the products unasked
        for start in range(0, len(queries), search.queries):
            block = slice(start, start + search.queries)
            part = queries[block].detach().to(reference.device)
            distances[block], indices[block] = search(part.reshape(len(part), -1), start)
    return distances, indices


def merge(distances: Sequence[Tensor], indices: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k nearest among the answers of several shards of a reference: exactly the answer of the whole.

    Args:
        distances: per shard ``[Q, k_s]`` float32 from :func:`nearest`, ``k_s = min(k, rows of the shard)``.
        indices: per shard ``[Q, k_s]`` int64, mapped to rows of the whole reference by an ascending map (an
            offset, or ``i * ranks + rank``).
        k: number of neighbours wanted, at most the sum of all ``k_s``.

    Returns:
        ``[Q, k]`` distances and ``[Q, k]`` indices, as :func:`nearest` orders them.

    Raises:
        UserError: fewer than k candidates.
    """
    if sum(d.shape[1] for d in distances) < k:
        raise UserError(f"k = {k} neighbours of {sum(d.shape[1] for d in distances)} candidates: give a smaller k")
    ids, order = torch.cat(list(indices), 1).sort(dim=1)
    near, best = torch.cat(list(distances), 1).gather(1, order).sort(dim=1, stable=True)
    return near[:, :k].contiguous(), ids.gather(1, best[:, :k])


class _Search:
    """Sizes of the blocks on both sides, and the search of one block of queries."""

    def __init__(self, reference: Reference, count: int, k: int, budget: int) -> None:
        self.reference, self.k = reference, k
        # Bytes for a query (as given, shifted in float64, in float32, rounded; its candidates), for a
        # reference row (its copies, if any; its part in sorting a whole block), for the scores of a pair.
        size, width, wide = reference.size, k + MARGIN, reference.dtype.itemsize
        query = size * 24 + (160 + 16 * GROUP) * width + 128
        row = (size * (4 + 2 * wide) if reference.copies else 0) + 384
        least = max(2 * (query + row + 8 * GROUP), 4 * (32 * size + 64))
        max_rows(budget, least, "query and reference")
        half, self.rest = budget // 2, budget // 4  # the rest is for distances by subtraction
        self.queries, rows = tile(half, count, query, row, 8)
        self.rows = min(len(reference), max(1, rows - GROUP))
        self.scores = torch.empty(self.queries * (self.rows + GROUP), device=reference.device)

    def __call__(self, queries: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """``[q, k]`` distances and indices for ``[q, D]`` queries, the first of which is row ``start``."""
        reference, k = self.reference, self.k
        a = reference.centred(queries)
        a2 = squared_norms("query", a, start)
        a, error = _operand(a, a2, reference)
        underflow = reference.size * 2.0**-120
        low_a, high_a = a2 * (1 - error) - underflow, a2 * (1 + error) + underflow
        near = torch.full((len(a), k), torch.inf, device=a.device)
        index = torch.zeros((len(a), k), device=a.device, dtype=torch.int64)
        for begin in range(0, len(reference), self.rows):
            stored = reference.rows(begin, begin + self.rows)
            b2 = reference.norms[begin : begin + self.rows]
            # scores + low_a <= d^2 <= scores + high_a + 2 error b2
            scores = self.scores[: len(a) * GROUP * -(-len(b2) // GROUP)].view(len(a), -1)
            scores[:, len(b2) :] = torch.inf
            b = reference.centred(stored) if a.dtype == torch.float32 else stored
            _scores(a, b, b2 * (1 - error), scores[:, : len(b2)])

            minima = scores.view(len(a), GROUP, -1).amin(1)
            rows = (minima.amin(1) + low_a <= near[:, -1].square()).nonzero()[:, 0]
            count = k + MARGIN
            while len(rows):
                count, crowded = min(count, len(b2)), []
                for r in rows.split(max(1, self.queries * (k + MARGIN) // count)):
                    low, column = _smallest(scores, minima, r, count)
                    limit = near[r, -1].square()
                    if count >= k:
                        high = low[:, :k] + high_a[r, None] + 2 * error * b2[column[:, :k]]
                        limit = torch.minimum(limit, high.amax(1))
                    keep = low + low_a[r, None] <= limit[:, None]
                    full = keep[:, -1] & (count < len(b2))
                    i, j = (keep & ~full[:, None]).nonzero(as_tuple=True)
                    exact = torch.full_like(low, torch.inf)
                    exact[i, j] = self._distances(queries, stored, r[i], column[i, j])
                    near[r], index[r] = merge([near[r], exact], [index[r], column + begin], k)
                    crowded.append(r[full])
                rows, count = torch.cat(crowded), 8 * count
        return near, index

    def _distances(self, a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """``[p]`` float32 distances of rows ``a[i]`` from rows ``b[j]``, by subtraction in float64."""
        cached = 1 + 2**18 // a.shape[1]  # pairs whose copies stay in the cache
        step = min(cached, self.rest // (32 * a.shape[1] + 64))
        out = torch.empty(len(i), device=a.device)
        for part, x, y in zip(out.split(step), i.split(step), j.split(step)):
            pairs = a[x].double()[:, None], b[y].double()[:, None]
            part.copy_(torch.cdist(*pairs, compute_mode="donot_use_mm_for_euclid_dist").flatten())
        return out


def _operand(a: Tensor, a2: Tensor, reference: Reference) -> tuple[Tensor, float]:
    """The queries as the product takes them, and e of the module's docstring."""
    kind = reference.device.type
    unit = 2.0**-24 if kind == "cpu" else 2.0**-22  # tensor cores truncate where the processor rounds
    # 2 (D + 2) for the product and its start value; 32 for shift, norms, bounds and the square root.
    error = math.expm1((2 * reference.size + 36) * unit)
    if reference.dtype in (torch.bfloat16, torch.float16) and reference.shift is None:
        # Only the queries lose digits: |ab - a'b| <= |a - a'| |b|.
        rounded = a.to(reference.dtype)
        residual = torch.linalg.vector_norm(a - rounded, dim=1) / a2.sqrt()
        loss = float(residual.nan_to_num(0.0, torch.inf).max())
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


def _smallest(scores: Tensor, minima: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ascending values and columns ``[r, count]`` of the smallest scores in some rows of ``[q, n]``.

    They lie in the groups with the smallest minima ``[q, g]``; column c belongs to group c modulo g.
    """
    groups = minima.shape[1]
    if groups < 2 * count:
        return scores[rows].topk(count, largest=False)
    group = minima[rows].topk(count, largest=False, sorted=False).indices
    members = torch.arange(0, scores.shape[1], groups, device=scores.device)
    column = (group[:, None] + members[:, None]).flatten(1)
    low, pick = scores[rows[:, None], column].topk(count, largest=False)
    return low, column.gather(1, pick)
