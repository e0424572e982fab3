"""Exact Euclidean nearest neighbours in bounded memory.

Matrix products in float32 find the candidates (``products`` has the bound on their error), and only rule rows out: those
whose lower bound exceeds an upper bound of the k-th distance. The distances of all others are computed by subtraction in
float64 from the rows as they are stored. Where thousands of rows are too alike for float32, a product in float64 rules
out most of them first: slower, equally exact.

Neighbours are ordered by the float32 distance that is returned, then by index; hence answers do not depend on
blocks and shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.products import (
    ROUNDED,
    Operand,
    cheaper_by_subtraction,
    operand,
    pair_bytes,
    scores,
    subtracted,
    wide_costs,
    wide_tiles,
)
from fm_lightning.metrics.neighbours.reference import (
    BUDGET,
    AbstractReference,
    Reference,
    check_match,
    check_shape,
    max_rows,
    squared_norms,
    tile,
)

GROUP = 16  # scores of which only the minimum is compared with others at first
MARGIN = 14  # candidates expected in a block beyond the k wanted; a query that has more gets a longer list


Visit = Callable[[slice, Operand, Tensor, Tensor], None]  # queries [q], their operand, norms |b|^2 [n], scores [q, n]


@torch.no_grad()
def nearest(
    queries: Tensor, reference: Reference | Any, k: int, *, budget: int = BUDGET, visit: Visit | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the reference for every query.

    Args:
        queries: ``[Q, ...]`` on any device.
        reference: ``[N, ...]`` a :class:`Reference`, or what one is made of. Keep a Reference between calls. A
            ``ShardedReference`` is searched by all its processes together.
        k: number of neighbours, 1 to N.
        budget: bytes of memory used beside arguments, results and the Reference, independent of Q and N.
        visit: called with every block of scores (see ``Operand``) as it passes by, so that sums over all pairs cost no second
            product; it must not change them. Not with a reference that is divided among processes.

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
    if isinstance(reference, AbstractReference):
        return reference.nearest(queries, k, budget=budget)
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
            distances[block], indices[block] = search(part.reshape(len(part), -1), start, visit)
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


@dataclass
class _Found:
    """A block of queries as stored ``[q, D]``, and the k nearest of each among the rows seen so far."""

    queries: Tensor
    near: Tensor  # [q, k] float32
    index: Tensor  # [q, k]


@dataclass
class _Columns:
    """The block of the reference that is looked at."""

    stored: Tensor  # [n, D]
    begin: int  # the first one's index
    slack: Tensor  # [n]: a score bounds d^2 from above but for this and the query's `high`


class _Search:
    """Sizes of the blocks on both sides, and the search of one block of queries."""

    def __init__(self, reference: Reference, count: int, k: int, budget: int) -> None:
        self.reference, self.k = reference, k
        # Bytes for a query (as given, shifted in float64, in float32, rounded; its candidates), for a
        # reference row (its copies, if any; its part in sorting a whole block), for the scores of a pair.
        size, width, bytes_ = reference.size, k + MARGIN, reference.dtype.itemsize
        query = size * 24 + (160 + 16 * GROUP) * width + 128
        row = (size * (4 + 2 * bytes_) if reference.copies else 0) + 384
        self.wide = wide_costs(size, 192 * width, 256, 8)
        self.rest = budget // 8  # each for products in float64 and for distances by subtraction
        least = max(2 * (query + row + 8 * GROUP), 8 * pair_bytes(size), 8 * sum(self.wide))
        max_rows(budget, least, "query and reference")
        self.queries, rows = tile(budget // 2, count, query, row, 8)
        self.rows = min(len(reference), max(1, rows - GROUP))
        self.scores = torch.empty(self.queries * (self.rows + GROUP), device=reference.device)

    def __call__(self, queries: Tensor, start: int, visit: Visit | None = None) -> tuple[Tensor, Tensor]:
        """``[q, k]`` distances and indices for ``[q, D]`` queries, the first of which is row ``start``."""
        reference, k = self.reference, self.k
        a = reference.centred(queries)
        side = operand(a, squared_norms("query", a, start), reference)
        near = torch.full((len(a), k), torch.inf, device=a.device)
        found = _Found(queries, near, torch.zeros((len(a), k), device=a.device, dtype=torch.int64))
        for begin in range(0, len(reference), self.rows):
            stored = reference.rows(begin, begin + self.rows)
            b2 = reference.norms[begin : begin + self.rows]
            table = self.scores[: len(a) * GROUP * -(-len(b2) // GROUP)].view(len(a), -1)
            table[:, len(b2) :] = torch.inf
            b = reference.centred(stored) if side.rows.dtype == torch.float32 else stored
            scores(side.rows, b, b2 * (1 - side.error), table[:, : len(b2)])
            if visit is not None:
                visit(slice(start, start + len(a)), side, b2, table[:, : len(b2)])

            columns = _Columns(stored, begin, 2 * side.error * b2)
            minima = table.view(len(a), GROUP, -1).amin(1)
            rows = (minima.amin(1) + side.low <= near[:, -1].square()).nonzero()[:, 0]
            count = k + MARGIN
            while len(rows):
                count, crowded = min(count, len(b2)), []
                for r in rows.split(max(1, self.queries * (k + MARGIN) // count)):
                    full = self._improve(
                        found, r, columns, _smallest(table, minima, r, count), side.low[r], side.high[r]
                    )
                    crowded.append(r[full])
                rows, count = torch.cat(crowded), 8 * count
                if not cheaper_by_subtraction(len(rows) * min(count, len(b2)), len(rows), len(b2)):
                    self._look_closely(found, rows, columns)
                    break
        return found.near, found.index

    def _look_closely(self, found: _Found, rows: Tensor, columns: _Columns) -> None:
        """The same for a few queries, with scores in float64."""
        for part, some, side, b2, table in wide_tiles(
            found.queries, columns.stored, rows, self.reference.shift, self.rest, self.wide
        ):
            few = _Columns(columns.stored[some], columns.begin + some.start, 2 * side.error * b2)
            left, count = torch.arange(len(part), device=part.device), self.k + MARGIN
            while len(left):
                count, crowded = min(count, len(b2)), []
                for r in left.split(max(1, len(part) * (self.k + MARGIN) // count)):
                    smallest = table[r].topk(count, largest=False)
                    crowded.append(r[self._improve(found, part[r], few, smallest, side.low[r], side.high[r])])
                left, count = torch.cat(crowded), 8 * count

    def _improve(
        self, found: _Found, rows: Tensor, columns: _Columns, smallest: Sequence[Tensor], low: Tensor, high: Tensor
    ) -> Tensor:
        """Puts the candidates among the smallest scores, ascending ``[r, c]``, and their columns in their places.

        Returns:
            ``[r]`` bool: queries for which more columns than these may be candidates, and nothing was done.
        """
        k, (score, column) = self.k, smallest
        limit = found.near[rows, -1].to(score.dtype).square()
        if score.shape[1] >= k:
            limit = torch.minimum(limit, (score[:, :k] + high[:, None] + columns.slack[column[:, :k]]).amax(1))
        keep = score + low[:, None] <= limit[:, None] * ROUNDED
        full = keep[:, -1] & (score.shape[1] < len(columns.stored))
        i, j = (keep & ~full[:, None]).nonzero(as_tuple=True)
        exact = torch.full(score.shape, torch.inf, device=score.device)
        exact[i, j] = subtracted(found.queries, columns.stored, rows[i], column[i, j], self.rest)
        near, index = [found.near[rows], exact], [found.index[rows], column + columns.begin]
        found.near[rows], found.index[rows] = merge(near, index, k)
        return full


def _smallest(table: Tensor, minima: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ascending values and columns ``[r, count]`` of the smallest scores in some rows of ``[q, n]``.

    They lie in the groups with the smallest minima ``[q, g]``; column c belongs to group c modulo g.
    """
    groups = minima.shape[1]
    if groups < 2 * count:
        return table[rows].topk(count, largest=False)
    group = minima[rows].topk(count, largest=False, sorted=False).indices
    members = torch.arange(0, table.shape[1], groups, device=table.device)
    column = (group[:, None] + members[:, None]).flatten(1)
    low, pick = table[rows[:, None], column].topk(count, largest=False)
    return low, column.gather(1, pick)
