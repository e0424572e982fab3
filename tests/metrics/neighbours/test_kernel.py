"""Kernel sums against float64 sums over all pairs at once, and their memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.kernel import log_kernel_sum
from fm_lightning.metrics.neighbours.reference import Reference


def logits(queries: Tensor, rows: Tensor, h: float | Tensor) -> Tensor:
    squares = torch.cdist(queries.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return -squares / (2 * torch.as_tensor(h, dtype=torch.float64).reshape(-1, 1) ** 2)


@pytest.mark.parametrize("h", [1e-3, 0.1, 1.0, 30.0, float("inf")])
@pytest.mark.parametrize(("q", "n", "d"), [(1, 1, 1), (33, 257, 7), (70, 100, 50)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_the_sum_over_all_pairs(h: float, q: int, n: int, d: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, d, generator=generator) + offset
    queries = rows[torch.arange(q) % n] + 0.1 * torch.randn(q, d, generator=generator)
    weights = logits(queries, rows, h)
    sums = log_kernel_sum(queries, rows, h, budget=2**15)
    assert torch.allclose(sums, weights.logsumexp(1), rtol=1e-7, atol=1e-9)


def test_one_bandwidth_for_each_query() -> None:
    generator = torch.Generator().manual_seed(1)
    rows, queries = (torch.randn(count, 5, generator=generator) for count in (90, 20))
    h = torch.linspace(0.1, 3, 20)
    got = log_kernel_sum(queries, Reference(rows), h, budget=2**14)
    assert torch.allclose(got, logits(queries, rows, h).logsumexp(1), rtol=1e-9)


def test_no_queries() -> None:
    assert log_kernel_sum(torch.empty(0, 3), torch.ones(2, 3), 1.0).shape == (0,)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_a_bandwidth_must_be_positive(bandwidth: float | Tensor) -> None:
    with pytest.raises(UserError, match="must be positive"):
        log_kernel_sum(torch.ones(2, 3), torch.ones(4, 3), bandwidth)


def test_a_query_that_is_not_finite_is_named() -> None:
    with pytest.raises(UserError, match="Query row 1 contains NaN"):
        log_kernel_sum(torch.tensor([[0.0], [torch.nan]]), torch.ones(4, 1), 1.0)


@pytest.mark.parametrize("offset", [0.0, 9.0])
def test_memory_stays_within_the_budget(offset: float, peak_bytes) -> None:
    generator = torch.Generator().manual_seed(3)
    rows, queries = (torch.randn(count, 64, generator=generator) + offset for count in (1500, 400))
    reference, budget = Reference(rows), 2**20
    assert (
        peak_bytes(lambda: log_kernel_sum(queries, reference, 5.0, budget=budget)) <= budget + queries.nbytes + 16 * 400
    )


def test_bandwidths_must_match_the_queries() -> None:
    with pytest.raises(UserError, match="one per query"):
        log_kernel_sum(torch.ones(2, 3), torch.ones(4, 3), torch.ones(3))
