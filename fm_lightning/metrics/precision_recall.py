"""Precision and recall of samples by balls around features (arXiv 1904.06991).

    B(F) = union of the balls around each f in F, reaching to its k-th nearest other point of F
    precision = share of samples inside B(real)         recall = share of real images inside B(samples)

One product of all samples with all real images answers both questions, in blocks. Most points have a pair for which its
error bound leaves no doubt (see ``products``); the others are looked at again in float64 and, on the edge of a ball, by
subtraction. So the answers are exact, where the usual products of float32 features lose their digits just at copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.products import (
    ROUNDED,
    Operand,
    cheaper_by_subtraction,
    operand,
    subtracted,
    wide_costs,
    wide_tiles,
)
from fm_lightning.metrics.neighbours.reference import BUDGET, Reference, check_match, max_rows, squared_norms, tile
from fm_lightning.metrics.neighbours.search import nearest

NEIGHBOURS = 3


class Balls:
    """Balls around features, reaching to the k-th nearest other one.

    Args:
        features: ``[n, D]``, more than k.
        k: 3 in the literature, and for ADM.

    Attributes:
        centres: the features, prepared.
        radius: ``[n]`` float32.

    Raises:
        UserError: k or fewer features.

    Example:
        >>> Balls(torch.tensor([[0.0], [1.0], [3.0]]), k=1).hold(torch.tensor([[-0.9], [4.5], [5.5]]))
        tensor([ True,  True, False])
    """

    def __init__(self, features: Tensor, k: int = NEIGHBOURS) -> None:
        if len(features) <= k:
            raise UserError(
                f"balls to the neighbour number {k} of {len(features)} images asked for, expected more than {k} on each "
                "side of precision and recall; draw more seeds"
            )
        self.centres = Reference(features.float().contiguous())
        self.radius = nearest(self.centres.data, self.centres, k + 1)[0][:, k]  # the nearest of all is the point itself

    def hold(self, points: Tensor) -> Tensor:
        """``[m]`` bool for points ``[m, D]``: which lie in at least one ball, its edge included."""
        return _inside(points.float(), None, self)[0]


def precision_recall(features: Tensor, real: Tensor, balls: Balls | None = None) -> dict[str, float]:
    """``precision`` and ``recall``; on Inception's features and with k = 3 they are ADM's.

    Args:
        features: ``[n, D]`` of the samples.
        real: ``[m, D]`` of real images.
        balls: around ``real``, where they are at hand from an earlier call.

    Raises:
        UserError: a side with three images or fewer.
    """
    samples = Balls(features)
    inside = _inside(samples.centres.data, samples.radius, balls or Balls(real))
    precision, recall = (float(found.double().mean()) for found in inside)
    return {"precision": precision, "recall": recall}


@dataclass
class _Side:
    """Points that may lie in balls around the points of the other side."""

    points: Tensor  # [p, D]
    low: Tensor  # [p], see Operand
    high: Tensor  # [p]
    inside: Tensor  # [p] bool, what is known


@torch.no_grad()
def _inside(points: Tensor, radius: Tensor | None, balls: Balls, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
    """Which of the points ``[m, D]`` lie in the balls and, given radii ``[m]`` about the points, which centres in theirs."""
    reference = balls.centres
    check_match(points, reference)
    device, size = reference.device, reference.size
    found, centres = (torch.zeros(n, dtype=torch.bool, device=device) for n in (len(points), len(reference)))
    # Bytes for a point, a centre (its shifted copy, if any) and a pair (product, bounds; those of open points again).
    query, row, pair = 24 * size + 128, (12 * size if reference.copies else 0) + 128, 20
    wide = wide_costs(size, 64, 64, 32)
    max_rows(budget, max(2 * (query + row + pair), 8 * sum(wide)), "point and centre")
    some, columns = tile(budget // 2, len(points), query, row, pair)
    few = budget // 8
    memory = torch.empty(2, some * min(columns, len(reference)), device=device)
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(points), some):
            block = slice(start, start + some)
            stored = points[block].to(device)
            a = reference.centred(stored)
            a2 = squared_norms("point", a, start)
            left = operand(a, a2, reference)
            for begin in range(0, len(reference), columns):
                other = slice(begin, begin + columns)
                rows, b2 = reference.rows(begin, begin + columns), reference.norms[other]
                right = Operand(rows, b2 * (1 - left.error), b2 * (1 + left.error), left.error)
                product, bounds = (m[: len(a) * len(b2)].view(len(a), len(b2)) for m in memory)
                torch.mm(left.rows, reference.centred(rows).T, out=product)
                here = _Side(stored, left.low, left.high, found[block])
                _look(here, right, rows, balls.radius[other], product, bounds, reference.shift, few, wide)
                if radius is not None:
                    there = _Side(rows, right.low, right.high, centres[other])
                    _look(there, left, stored, radius[block], product.T, bounds.T, reference.shift, few, wide)
    return found.to(points.device), centres


def _look(
    side: _Side,
    other: Operand,
    centres: Tensor,
    radius: Tensor,
    product: Tensor,
    bounds: Tensor,
    shift: Tensor | None,
    budget: int,
    wide: tuple[int, int, int],
) -> None:
    """Which points of one side lie in balls of radius ``[n]`` about those of the other, by their product ``[p, n]``."""
    # bounds + low <= d^2 - r^2 <= bounds + low + slack
    torch.sub(other.low - radius.square() * ROUNDED, product, alpha=2, out=bounds)
    least, column = bounds.min(1)
    slack = (other.high - other.low + radius.square() * (8 * (ROUNDED - 1)))[column]
    side.inside |= least + slack + side.high <= 0
    open_ = (~side.inside & (least + side.low <= 0)).nonzero()[:, 0]
    if not len(open_):
        return
    candidates = bounds[open_] + side.low[open_, None] <= 0
    if cheaper_by_subtraction(int(candidates.sum()), len(open_), len(centres)):
        _subtract(side, open_, candidates, centres, radius, budget)
        return
    r2 = radius.double().square()
    for part, some, a, b2, scores in wide_tiles(side.points, centres, open_, shift, budget, wide):
        bounds = scores.sub_(r2[some] * ROUNDED)
        least, column = bounds.min(1)
        slack = (2 * a.error * b2 + r2[some] * (8 * (ROUNDED - 1)))[column]
        side.inside[part] |= least + slack + a.high <= 0
        candidates = (bounds + a.low[:, None] <= 0) & ~side.inside[part, None]
        _subtract(side, part, candidates, centres[some], radius[some], budget)


def _subtract(side: _Side, part: Tensor, candidates: Tensor, centres: Tensor, radius: Tensor, budget: int) -> None:
    """Decides pairs ``[p, n]`` of some points with centres by their distances."""
    i, j = candidates.nonzero(as_tuple=True)
    held = subtracted(side.points, centres, part[i], j, budget) <= radius[j]
    side.inside[part[i[held]]] = True
