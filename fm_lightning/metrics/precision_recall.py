"""Precision and recall of samples by balls around features (arXiv 1904.06991).

    B(F) = union of the balls around each f in F, reaching to its k-th nearest other point of F
    precision = share of samples inside B(real)         recall = share of real images inside B(samples)

One product of all samples with all real images answers both questions, in blocks. Most points have a pair for which its
error bound leaves no doubt; the others go down the ``cascade``. So the answers are exact, where the usual products of float32
features lose their digits just at copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.cascade import Cascade, Tile, float64_costs
from fm_lightning.metrics.neighbours.products import ROUNDED, Operand, operand
from fm_lightning.metrics.neighbours.reference import BUDGET, Reference, check_match, max_rows, squared_norms, tile
from fm_lightning.metrics.neighbours.search import nearest

NEIGHBOURS = 3


class Balls:
    """Balls around features, reaching to the third nearest other one, as in the literature and for ADM.

    Args:
        features: ``[n, D]``, more than three.

    Attributes:
        centres: the features, prepared.
        radius: ``[n]`` float32.

    Raises:
        UserError: three or fewer features.
    """

    def __init__(self, features: Tensor) -> None:
        k = NEIGHBOURS
        if len(features) <= k:
            raise UserError(
                f"{len(features)} images are too few for balls to neighbour {k}.", f"Use more than {k} on each side."
            )
        self.centres = Reference(features.float().contiguous())
        self.radius = nearest(self.centres.data, self.centres, k + 1)[0][:, k]  # the nearest of all is the point itself


def precision_recall(features: Tensor, real: Tensor, balls: Balls | None = None) -> dict[str, float]:
    """``precision`` and ``recall`` with k = 3.

    On Inception's features this is the definition of ADM's evaluator. The evaluator takes squared distances in float16,
    whereas these are exact: points near the edge of a ball may fall on its other side.

    Args:
        features: ``[n, D]`` of the samples.
        real: ``[m, D]`` of real images.
        balls: around ``real``, if they were computed before.

    Raises:
        UserError: a side with three images or fewer.
    """
    samples = Balls(features)
    inside = _inside(samples, balls or Balls(real))
    precision, recall = (float(found.double().mean()) for found in inside)
    return {"precision": precision, "recall": recall}


@torch.no_grad()
def _inside(samples: Balls, balls: Balls, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
    """``[m]`` and ``[n]`` bool: which centres of either side lie in a ball of the other, its edge included."""
    points, radius, reference = samples.centres.data, samples.radius, balls.centres
    check_match(points, reference)
    device, size, shift = reference.device, reference.size, reference.shift
    found, centres = (torch.zeros(n, dtype=torch.bool, device=device) for n in (len(points), len(reference)))
    # Bytes for a point, a centre (its shifted copy, if any) and a pair (product, bounds; those of open points again).
    query, row, pair = 24 * size + 128, (12 * size if reference.copies else 0) + 128, 20
    costs = float64_costs(size, 64, 64, 32)
    max_rows(budget, max(2 * (query + row + pair), 8 * sum(costs)), "point and centre")
    some, columns = tile(budget // 2, len(points), query, row, pair)
    rest = budget // 8
    memory = torch.empty(2, some * min(columns, len(reference)), device=device)
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(points), some):
            block = slice(start, start + some)
            stored = points[block].to(device)
            a = reference.centred(stored)
            left = operand(a, squared_norms("point", a, start), reference)
            for begin in range(0, len(reference), columns):
                other = slice(begin, begin + columns)
                rows, b2 = reference.rows(begin, begin + columns), reference.norms[other]
                right = Operand(rows, b2 * (1 - left.error), b2 * (1 + left.error), left.error)
                product, scores = (m[: len(a) * len(b2)].view(len(a), len(b2)) for m in memory)
                torch.mm(left.rows, reference.centred(rows).T, out=product)
                here = _Contained(balls.radius[other], found[block], stored, rows, shift, rest, costs)
                here.run(_tile(left, right, product, scores))
                there = _Contained(radius[block], centres[other], rows, stored, shift, rest, costs)
                there.run(_tile(right, left, product.T, scores.T))
    return found.to(points.device), centres


def _tile(points: Operand, centres: Operand, product: Tensor, out: Tensor) -> Tile:
    """The bounds that their product ``[p, n]`` gives, scores in ``out``."""
    scores = torch.sub(centres.low, product, alpha=2, out=out)
    every = torch.arange(len(product), device=product.device)
    return Tile(every, slice(0, len(centres.low)), scores, points.low, points.high, centres.high - centres.low)


class _Contained(Cascade):
    """Which points of a block lie in balls about the rows of another.

    Args:
        radius: ``[n]`` of the balls.
        inside: ``[q]`` bool, what is known of the points, brought up to date.
        args: see ``Cascade``.
    """

    def __init__(self, radius: Tensor, inside: Tensor, *args: Any) -> None:
        super().__init__(*args)
        self.radius, self.inside = radius, inside

    def decide(self, tile: Tile) -> Tensor:
        r2 = self.radius[tile.columns].to(tile.scores.dtype).square()
        # bounds + low <= d^2 - r^2 <= bounds + high + slack
        bounds = tile.scores.sub_(r2 * ROUNDED)
        least, column = bounds.min(1)
        slack = (tile.slack + r2 * (8 * (ROUNDED - 1)))[column]
        inside = self.inside[tile.queries] | (least + slack + tile.high <= 0)
        self.inside[tile.queries] = inside
        rows = (~inside & (least + tile.low <= 0)).nonzero()[:, 0]
        points = tile.queries[rows]
        candidates = bounds[rows] + tile.low[rows, None] <= 0
        if tile.leaves(int(candidates.sum()), len(rows)):
            return points
        i, j = candidates.nonzero(as_tuple=True)
        i, j = points[i], j.add_(tile.columns.start)
        self.inside[i[self.distances(i, j) <= self.radius[j]]] = True
        return points[:0]
