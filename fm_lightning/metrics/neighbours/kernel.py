"""Sums over a Gaussian kernel, streamed over a reference of any size in bounded memory.

With ``w_n = exp(-|x - x_n|^2 / (2 h^2))``: the logarithm of the sum of all w_n, as kernel densities and kernel distances need it.
Squared distances come from products in float64: in float32 their rounding errors, divided by ``h^2``, would be the exponents
of a narrow kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.reference import (
    BUDGET,
    Reference,
    check_match,
    check_shape,
    max_rows,
    squared_norms,
    tile,
)


@torch.no_grad()
def log_kernel_sum(
    queries: Tensor, reference: Reference | Any, bandwidth: float | Tensor, *, budget: int = BUDGET
) -> Tensor:
    """``log sum_n exp(-|x - x_n|^2 / (2 h^2))`` for every query.

    Minus ``log N + D/2 log(2 pi h^2)`` this is the log density of the kernel estimate.

    Args:
        queries: ``[Q, ...]`` on any device.
        reference: ``[N, ...]`` a :class:`Reference`, or what one is made of.
        bandwidth: h > 0, in the data's unit, one for all or ``[Q]``; infinity weighs all rows alike.
        budget: bytes of memory used in addition to arguments, result and the Reference, independent of Q and N.

    Returns:
        ``[Q]`` float64 on the queries' device.

    Raises:
        UserError: a bandwidth that is not positive; rows of different sizes, a row that is not finite (it is
            named), an empty reference, or a budget too small for one row.
    """
    check_shape("queries", queries)
    reference = reference if isinstance(reference, Reference) else Reference(reference, budget=budget)
    check_match(queries, reference)
    h = torch.as_tensor(bandwidth, dtype=torch.float64, device=reference.device)
    if h.ndim and h.shape != queries.shape[:1]:
        raise UserError(
            f"Bandwidths have shape {list(h.shape)} and there are {len(queries)} queries.",
            "Pass one bandwidth, or one per query.",
        )
    h = h.expand(len(queries))
    if not (h > 0).all():
        raise UserError(
            f"bandwidth={float(h[~(h > 0)][0])} must be positive.",
            "Pass, for example, the median distance of a row to its nearest other row.",
        )
    # Queries and rows as stored and in float64, a shifted copy; logits and their exponentials.
    query, row, pair = 48 * reference.size + 64, 32 * reference.size + 64, 24
    max_rows(budget, query + row + pair, "query and reference")
    some, few = tile(budget, len(queries), query, row, pair)
    sums = torch.full((len(queries),), -torch.inf, dtype=torch.float64, device=queries.device)
    for start in range(0, len(queries), some):
        block = slice(start, start + some)
        part = queries[block].detach().to(reference.device)
        a = part.reshape(len(part), -1)
        squared_norms("query", a.float(), start)
        for logits in _logits(a.double(), reference, h[block, None], few):
            sums[block] = torch.logaddexp(sums[block], logits.logsumexp(1).to(sums.device))
    return sums


def _logits(a: Tensor, reference: Reference, h: Tensor, few: int) -> Iterator[Tensor]:
    """``[q, <= few]`` float64 logits of queries ``a [q, D]`` and all rows, part by part."""
    shift = 0.0 if reference.shift is None else reference.shift
    a = a - shift
    a2 = a.square().sum(1, keepdim=True)
    for start in range(0, len(reference), few):
        b = reference.rows(start, start + few).double() - shift
        squares = torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a2).clamp_(min=0)
        yield squares.div_(h).div_(h).mul_(-0.5)
