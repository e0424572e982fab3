"""What a matrix product says about distances, and distances by subtraction.

With rows a and b, rounded and shifted as the product sees them,

    | d(a, b)^2 - (|a|^2 + |b|^2 - 2 ab) |  <=  e (|a|^2 + |b|^2),     e about 2 D 2^-24 in float32, 2 D 2^-53 in float64

in any order of summation (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1, and
``2|a||b| <= |a|^2 + |b|^2``). That difference loses all digits where d is small, which is where copies are found; so
products only rule pairs out (see ``cascade``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.metrics.neighbours.reference import Reference

ROUNDED = 1 + 2.0**-22  # squares of two distances with equal float32 roundings differ by less than this factor


@dataclass(frozen=True)
class Operand:
    """Rows ``[q, D]`` on one side of the product, and what bounds their distances from the other side.

    ``s = |b|^2 (1 - error) - 2 ab`` is a pair's score: ``s + low <= d^2 <= s + high + 2 error |b|^2``.
    """

    rows: Tensor
    low: Tensor  # [q]
    high: Tensor  # [q]
    error: float


def operand(a: Tensor, a2: Tensor, reference: Reference) -> Operand:
    """Centred float32 rows ``[q, D]`` with squared norms ``[q]``, as their product with the reference's takes them."""
    rows, error = _rounded(a, a2, reference)
    underflow = reference.size * 2.0**-120
    return Operand(rows, a2 * (1 - error) - underflow, a2 * (1 + error) + underflow, error)


def _rounded(a: Tensor, a2: Tensor, reference: Reference) -> tuple[Tensor, float]:
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


def scores(a: Tensor, b: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """``bias - 2 a b^T`` into ``out``, float32 [q, n]."""
    if a.dtype != torch.float32 and a.is_cuda:
        return torch.add(bias, torch.mm(a, b.T, out_dtype=torch.float32), alpha=-2, out=out)
    return torch.addmm(bias, a.float(), b.float().T, alpha=-2, out=out)


def cheaper_by_subtraction(pairs: int, queries: int, rows: int) -> bool:
    """Whether so many subtractions take less time than products in float64 of queries with rows.

    Per number in a row, on a processor: 3 ns a subtraction, 0.04 ns a product, 2 ns for the wide copy of a row.
    """
    return 75 * pairs <= rows * (50 + queries)


def subtracted(a: Tensor, b: Tensor, i: Tensor, j: Tensor, budget: int) -> Tensor:
    """``[p]`` float32 distances of rows ``a[i]`` from rows ``b[j]``, by subtraction in float64."""
    step = min(1 + 2**21 // a.shape[1], budget // pair_bytes(a.shape[1]))
    out = torch.empty(len(i), device=a.device)
    for part, x, y in zip(out.split(step), i.split(step), j.split(step)):
        difference = a.index_select(0, x).double()
        difference -= b.index_select(0, y)
        part.copy_(torch.linalg.vector_norm(difference, dim=1))
    return out


def pair_bytes(size: int) -> int:
    """Bytes that a subtraction of rows of so many numbers takes at most."""
    return 16 * size + 64
