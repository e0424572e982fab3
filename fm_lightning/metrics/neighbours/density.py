"""Neighbours and kernel densities in one pass over the reference.

The products that find the nearest neighbours also say how far all other rows are; the sums

    log sum_n exp(-|x - x_n|^2 / (2 h^2))

are taken from them as they pass by, for several h. A product in float32 errs by at most ``e (|x|^2 + |x_n|^2)`` (see
``products``; in practice a thousand times less). Where that could move a sum's logarithm by more than ``TOLERANCE``, as for
narrow kernels far from the centre, it is taken again from products in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fm_lightning.metrics.neighbours.kernel import log_kernel_sum
from fm_lightning.metrics.neighbours.products import Operand
from fm_lightning.metrics.neighbours.reference import BUDGET, Reference
from fm_lightning.metrics.neighbours.search import nearest

TOLERANCE = 0.02  # of a log density, guaranteed
_CACHED = 2**18  # numbers of a block that stay in the processor's cache


@torch.no_grad()
def nearest_with_kernel_sums(
    queries: Tensor, reference: Reference, k: int, bandwidths: Sequence[float], *, budget: int = BUDGET
) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows, as ``nearest`` finds them, and the logarithm of the kernel sum for each bandwidth.

    Args:
        queries: ``[Q, ...]``.
        bandwidths: H numbers h > 0, in the data's unit.

    Returns:
        distances ``[Q, k]`` and indices ``[Q, k]`` of ``nearest``; ``[Q, H]`` float64 sums, correct to ``TOLERANCE``.

    Raises:
        UserError: as ``nearest`` and ``log_kernel_sum``.
    """
    sums = torch.full((len(queries), len(bandwidths)), -torch.inf, dtype=torch.float64, device=reference.device)
    loss = torch.zeros(len(queries), dtype=torch.float64, device=reference.device)  # bound on the error of d^2
    largest = float(reference.norms.max())

    def visit(block: slice, side: Operand, b2: Tensor, scores: Tensor) -> None:
        a2 = (side.low.double() + side.high.double()) / 2
        torch.maximum(loss[block], side.error * (a2 + largest), out=loss[block])
        bias = side.error * b2
        rows = max(1, _CACHED // len(b2))
        for part, norm, total in zip(scores.split(rows), a2.split(rows), sums[block].split(rows)):
            squares = part + bias  # but for |x|^2
            least = squares.amin(1, keepdim=True)
            squares -= least
            base = (norm + least[:, 0].double()).clamp_(min=0)
            weights = torch.empty_like(squares)
            for column, h in enumerate(bandwidths):
                torch.mul(squares, -0.5 / h**2, out=weights).exp_()
                here = weights.sum(1).double().log_() - base / (2 * h**2)
                total[:, column] = torch.logaddexp(total[:, column], here)

    distances, indices = nearest(queries, reference, k, budget=budget, visit=visit)
    for column, h in enumerate(bandwidths):
        doubtful = (loss > 2 * h**2 * TOLERANCE).nonzero()[:, 0]
        if len(doubtful):
            again = log_kernel_sum(queries[doubtful.to(queries.device)], reference, h, budget=budget)
            sums[doubtful, column] = again.to(sums.device)
    return distances, indices, sums.to(queries.device)
