"""The cascade that decides questions about distances exactly, most of them by a product of matrices.

    product in float32 -> bounds -> product in float64 -> sharper bounds -> subtraction in float64

Each step decides what its bounds allow and leaves fewer pairs to the next, which costs more. Products in float64 are taken only
where subtracting what float32 leaves open would take longer: many rows too alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.metrics.neighbours.products import cheaper_by_subtraction, subtracted
from fm_lightning.metrics.neighbours.reference import tile as fitting


@dataclass(frozen=True)
class Tile:
    """What a product says of some queries and some rows: ``scores + low <= d^2 <= scores + high + slack``.

    Attributes:
        queries: ``[q]`` which queries of the block.
        columns: which rows of the block.
        scores: ``[q, n]``, columns beyond the rows are infinite.
        low: ``[q]``.
        high: ``[q]``.
        slack: ``[n]``.
        minima: ``[q, g]`` the least score in each group of columns, if there are groups; column c is in group c modulo g.
        last: whether only subtraction is left.
    """

    queries: Tensor
    columns: slice
    scores: Tensor
    low: Tensor
    high: Tensor
    slack: Tensor
    minima: Tensor | None = None
    last: bool = False

    def leaves(self, pairs: int, queries: int) -> bool:
        """Whether so many pairs, of so many queries, go to a sharper product before they are subtracted."""
        return not (self.last or cheaper_by_subtraction(pairs, queries, len(self.slack)))


class Cascade(ABC):
    """Decides something about a block of queries and a block of rows.

    Args:
        queries: ``[q, D]`` as stored.
        rows: ``[n, D]`` as stored.
        shift: ``[D]``, or None (see ``Reference``).
        budget: bytes for products in float64, and as much again for subtractions.
        costs: bytes for a query, a row and a pair, see ``float64_costs``.
    """

    def __init__(
        self, queries: Tensor, rows: Tensor, shift: Tensor | None, budget: int, costs: tuple[int, int, int]
    ) -> None:
        self.queries, self.rows, self.shift, self.budget, self.costs = queries, rows, shift, budget, costs

    @abstractmethod
    def decide(self, tile: Tile) -> Tensor:
        """Decides what a tile's bounds allow, and by ``distances`` what it does not leave to a sharper product.

        Returns:
            the queries that are left; none of the last tile.
        """

    def run(self, tile: Tile) -> None:
        """All steps, from the tile of the product in float32."""
        left = self.decide(tile)
        if len(left):
            for sharper in self._tiles_in_float64(left):
                self.decide(sharper)

    def distances(self, i: Tensor, j: Tensor) -> Tensor:
        """``[p]`` float32 distances of queries i from rows j, by subtraction."""
        return subtracted(self.queries, self.rows, i, j, self.budget)

    def _tiles_in_float64(self, queries: Tensor) -> Iterator[Tile]:
        size = self.queries.shape[1]
        error, underflow = math.expm1((2 * size + 36) * 2.0**-52), size * 2.0**-1000
        some, few = fitting(self.budget, len(queries), *self.costs)
        for part in queries.split(some):
            a = self._centred(self.queries.index_select(0, part))
            a2 = torch.linalg.vector_norm(a, dim=1).square_()
            low, high = a2 * (1 - error) - underflow, a2 * (1 + error) + underflow
            for begin in range(0, len(self.rows), few):
                columns = slice(begin, begin + few)
                b = self._centred(self.rows[columns])
                b2 = torch.linalg.vector_norm(b, dim=1).square_()
                scores = torch.addmm(b2 * (1 - error), a, b.T, alpha=-2)
                yield Tile(part, columns, scores, low, high, 2 * error * b2, last=True)

    def _centred(self, rows: Tensor) -> Tensor:
        copy = rows.to(torch.float64, copy=True)
        return copy if self.shift is None else copy.sub_(self.shift)


def float64_costs(size: int, query: int, row: int, pair: int) -> tuple[int, int, int]:
    """Bytes for a query, a row and a pair in a tile of float64, with what the decision adds for each."""
    return 16 * size + 64 + query, 8 * size + 64 + row, 8 + pair
