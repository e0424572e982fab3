"""Exact Euclidean nearest neighbours in bounded memory.

Products of matrices find the candidates (see ``cascade``), and only rule rows out: those whose lower bound exceeds an upper
bound of the k-th distance. The distances of all others are computed by subtraction in float64 from the rows as they are
stored.

Neighbours are ordered by the float32 distance that is returned, then by index; hence answers do not depend on
blocks and shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.cascade import Cascade, Tile, float64_costs
from fm_lightning.metrics.neighbours.products import ROUNDED, Operand, operand, pair_bytes, scores
from fm_lightning.metrics.neighbours.reference import (
    BUDGET,
    AbstractReference,
    Reference,
    check_k,
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
        budget: bytes of memory used in addition to arguments, results and the Reference, independent of Q and N.
        visit: called with every block of scores (see ``Operand``) as it passes by, so that sums over all pairs cost no second
            product; it must not change them. A reference divided among processes has no such blocks.

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
    check_k(k, len(reference))
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
    candidates = sum(d.shape[1] for d in distances)
    if candidates < k:
        raise UserError(f"k={k} must be at most {candidates}, the number of candidates.", "Pass a smaller k.")
    ids, order = torch.cat(list(indices), 1).sort(dim=1)
    near, best = torch.cat(list(distances), 1).gather(1, order).sort(dim=1, stable=True)
    return near[:, :k].contiguous(), ids.gather(1, best[:, :k])


class _Search:
    """Sizes of the blocks on both sides, and the search of one block of queries."""

    def __init__(self, reference: Reference, count: int, k: int, budget: int) -> None:
        self.reference, self.k = reference, k
        # Bytes for a query (as given, shifted in float64, in float32, rounded; its candidates), for a
        # reference row (its copies, if any; its part in sorting a whole block), for the scores of a pair.
        size, width, bytes_ = reference.size, k + MARGIN, reference.dtype.itemsize
        query = size * 24 + (160 + 16 * GROUP) * width + 128
        row = (size * (4 + 2 * bytes_) if reference.copies else 0) + 384
        self.costs = float64_costs(size, 192 * width, 256, 8)
        self.rest = budget // 8  # each for products in float64 and for distances by subtraction
        least = max(2 * (query + row + 8 * GROUP), 8 * pair_bytes(size), 8 * sum(self.costs))
        max_rows(budget, least, "query and reference")
        self.queries, rows = tile(budget // 2, count, query, row, 8)
        self.rows = min(len(reference), max(1, rows - GROUP))
        self.scores = torch.empty(self.queries * (self.rows + GROUP), device=reference.device)

    def __call__(self, queries: Tensor, start: int, visit: Visit | None = None) -> tuple[Tensor, Tensor]:
        """``[q, k]`` distances and indices for ``[q, D]`` queries, the first of which is row ``start``."""
        reference = self.reference
        a = reference.centred(queries)
        side = operand(a, squared_norms("query", a, start), reference)
        every = torch.arange(len(a), device=a.device)
        near = torch.full((len(a), self.k), torch.inf, device=a.device)
        index = torch.zeros((len(a), self.k), device=a.device, dtype=torch.int64)
        for begin in range(0, len(reference), self.rows):
            stored = reference.rows(begin, begin + self.rows)
            b2 = reference.norms[begin : begin + self.rows]
            table = self.scores[: len(a) * GROUP * -(-len(b2) // GROUP)].view(len(a), -1)
            table[:, len(b2) :] = torch.inf
            b = reference.centred(stored) if side.rows.dtype == torch.float32 else stored
            scores(side.rows, b, b2 * (1 - side.error), table[:, : len(b2)])
            if visit is not None:
                visit(slice(start, start + len(a)), side, b2, table[:, : len(b2)])
            minima = table.view(len(a), GROUP, -1).amin(1)
            slack = 2 * side.error * b2
            cascade = _Nearest(near, index, begin, queries, stored, reference.shift, self.rest, self.costs)
            cascade.run(Tile(every, slice(0, len(b2)), table, side.low, side.high, slack, minima))
        return near, index


class _Nearest(Cascade):
    """Which rows of a block are among the k nearest.

    Args:
        near: ``[q, k]`` float32, the distances of the k nearest among the rows seen so far, brought up to date.
        index: ``[q, k]`` their indices.
        begin: the index of the block's first row.
        args: see ``Cascade``.
    """

    def __init__(self, near: Tensor, index: Tensor, begin: int, *args: Any) -> None:
        super().__init__(*args)
        self.near, self.index, self.begin = near, index, begin

    def decide(self, tile: Tile) -> Tensor:
        limit = self.near[tile.queries, -1].to(tile.low.dtype).square() * ROUNDED
        least = (tile.scores if tile.minima is None else tile.minima).amin(1)
        rows, count, width = (least + tile.low <= limit).nonzero()[:, 0], self.near.shape[1] + MARGIN, len(tile.slack)
        most = len(tile.queries) * count
        while len(rows):
            count = min(count, width)
            rows = torch.cat([r[self._improve(tile, r, count)] for r in rows.split(max(1, most // count))])
            count *= 8
            if tile.leaves(len(rows) * min(count, width), len(rows)):
                break
        return tile.queries[rows]

    def _improve(self, tile: Tile, rows: Tensor, count: int) -> Tensor:
        """Puts the candidates among the ``count`` smallest scores of some of the tile's rows in their places.

        Returns:
            ``[r]`` bool: rows for which more columns than these may be candidates, and nothing was done.
        """
        k, queries = self.near.shape[1], tile.queries[rows]
        low, high = tile.low[rows], tile.high[rows]
        score, column = _smallest(tile, rows, count)
        limit = self.near[queries, -1].to(score.dtype).square()
        if count >= k:
            limit = torch.minimum(limit, (score[:, :k] + high[:, None] + tile.slack[column[:, :k]]).amax(1))
        keep = score + low[:, None] <= limit[:, None] * ROUNDED
        full = keep[:, -1] & (count < len(tile.slack))
        i, j = (keep & ~full[:, None]).nonzero(as_tuple=True)
        column += tile.columns.start
        exact = torch.full(score.shape, torch.inf, device=score.device)
        exact[i, j] = self.distances(queries[i], column[i, j])
        near, index = [self.near[queries], exact], [self.index[queries], column + self.begin]
        self.near[queries], self.index[queries] = merge(near, index, k)
        return full


def _smallest(tile: Tile, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ascending values and columns ``[r, count]`` of the smallest scores in some rows: they lie in the groups with the least."""
    groups = 0 if tile.minima is None else tile.minima.shape[1]
    if tile.minima is None or groups < 2 * count:
        least = tile.scores[rows].topk(count, largest=False)
        return least.values, least.indices
    group = tile.minima[rows].topk(count, largest=False, sorted=False).indices
    members = torch.arange(0, tile.scores.shape[1], groups, device=rows.device)
    column = (group[:, None] + members[:, None]).flatten(1)
    low, pick = tile.scores[rows[:, None], column].topk(count, largest=False)
    return low, column.gather(1, pick)
