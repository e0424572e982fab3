"""Exactness against float64 brute force, ties, bounds of memory, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours import cascade
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import merge, nearest

SMALL = 2**17  # bytes: forces many blocks at the sizes of these tests


def brute(queries: Tensor, reference: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ordered by the float32 rounding of the float64 distance, then by index."""
    exact = torch.cdist(
        queries.flatten(1).double(),
        reference.flatten(1).double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    distances, indices = exact.float().sort(dim=1, stable=True)
    return distances[:, :k], indices[:, :k]


def check(queries: Tensor, reference: Tensor, k: int, prepared: object = None, **options: int) -> None:
    distances, indices = nearest(queries, reference if prepared is None else prepared, k, **options)
    expected, which = brute(queries, reference, k)
    assert distances.dtype == torch.float32
    assert indices.dtype == torch.int64
    assert torch.equal(distances, expected)
    assert torch.equal(indices, which)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    q=st.integers(0, 70),
    n=st.integers(1, 300),
    d=st.integers(1, 40),
    k=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e15]),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
    grid=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_equals_brute_force(
    q: int, n: int, d: int, k: int, seed: int, scale: float, offset: float, grid: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(n, d, generator=generator, dtype=torch.float64)
    queries = torch.randn(q, d, generator=generator, dtype=torch.float64)
    if grid:  # many ties
        reference, queries = reference.round(), queries.round()
    scale = min(scale, 10.0) if dtype == torch.float16 else scale
    reference, queries = ((x + offset) * scale for x in (reference, queries))
    reference = reference.to(dtype)
    queries = queries.to(torch.float64 if dtype == torch.float64 else torch.float32)
    check(queries, reference, min(k, n), budget=SMALL)


@pytest.mark.parametrize("noise", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_copies_keep_their_digits(noise: float, dtype: torch.dtype, offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = (torch.randn(500, 300, generator=generator) + offset).to(dtype)
    copies = reference[37:137].float() + noise * torch.randn(100, 300, generator=generator)
    distances, indices = nearest(copies, reference, 2, budget=2**22)
    exact = (copies.double() - reference[37:137].double()).norm(dim=1)
    assert torch.equal(indices[:, 0], torch.arange(37, 137))
    assert ((distances[:, 0] - exact).abs() <= 1e-7 * exact).all()
    check(copies, reference, 2, budget=2**22)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_thousands_of_near_duplicates(dtype: torch.dtype) -> None:
    # All within rounding of the products: only subtraction tells them apart, and exact copies tie.
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(1, 64, generator=generator)
    reference = (centre + 1e-5 * torch.randn(2000, 64, generator=generator)).to(dtype)
    reference[1000:1100] = reference[:100]
    check(centre + 1e-5 * torch.randn(20, 64, generator=generator), reference, 5, budget=2**21)
    check(reference[990:1010].float(), reference, 3, budget=2**21)


def test_an_outlier_does_not_spoil_the_bound_of_the_others() -> None:
    generator = torch.Generator().manual_seed(2)
    reference = torch.randn(400, 30, generator=generator)
    reference[::50] *= 1e8
    check(torch.cat([reference[:60] + 1e-4, reference[::50] * 1.0001]), reference, 3, budget=SMALL)


def test_sorted_by_distance_in_either_direction() -> None:
    line = torch.linspace(-1, 1, 2001)[:, None]
    queries = torch.tensor([[-2.0], [0.0005], [2.0]])
    check(queries, line, 4, budget=SMALL)
    check(queries, line.flip(0), 4, budget=SMALL)


def test_duplicates_are_ordered_by_index() -> None:
    reference = torch.ones(1000, 3)
    distances, indices = nearest(torch.ones(2, 3), reference, 40, budget=SMALL)
    assert (distances == 0).all()
    assert torch.equal(indices, torch.arange(40).expand(2, 40))


@pytest.mark.parametrize("shape", [(), (7,), (1, 5, 6)])
def test_rows_of_any_shape(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(90, *shape, generator=generator)
    queries = torch.randn(11, *shape, generator=generator)
    flat = nearest(queries.reshape(11, -1), reference.reshape(90, -1), 3)
    for got, expected in zip(nearest(queries, reference, 3), flat):
        assert torch.equal(got, expected)
    assert nearest(queries[:0], reference, 3)[0].shape == (0, 3)
    assert nearest(queries[:1], reference[:1], 1)[1].tolist() == [[0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integers_keep_their_digits(dtype: torch.dtype) -> None:
    offset = 0 if dtype == torch.uint8 else 2**30
    rows = torch.randint(0, 250, (400, 6), generator=torch.Generator().manual_seed(9)).add(offset).to(dtype)
    check(rows[100:150] + 1, rows, 3, budget=SMALL)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_memory_mapped_reference(tmp_path, dtype: str) -> None:
    values = (np.random.default_rng(0).random((700, 2, 9)) * 200).astype(dtype)
    np.save(tmp_path / "rows.npy", values)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    queries = torch.from_numpy(values[100:140].astype("float64")) + 0.01
    check(queries, torch.from_numpy(values), 4, prepared=Reference(mapped, budget=SMALL), budget=SMALL)


def test_a_prepared_reference_copies_nothing_and_can_be_kept() -> None:
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(300, 20, generator=generator)
    reference = Reference(rows)
    assert reference.rows(0, 300).data_ptr() == rows.data_ptr()
    for _ in range(2):
        check(torch.randn(50, 20, generator=generator), rows, 3, prepared=reference)


def test_rows_far_from_the_origin_are_shifted() -> None:
    assert Reference(torch.randn(100, 5)).shift is None
    shift = Reference(torch.randn(100, 5) + 100).shift
    assert shift is not None
    assert (shift - 100).abs().max() < 2


@pytest.mark.parametrize("shards", [2, 3, 7])
@pytest.mark.parametrize("strided", [False, True])
def test_merged_shards_equal_the_whole(shards: int, strided: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(200, 3, generator=generator).mul(2).round()  # ties across shards
    queries = torch.randn(60, 3, generator=generator).mul(2).round()
    ids = torch.arange(200)
    parts = [ids[r::shards] for r in range(shards)] if strided else list(ids.tensor_split(shards))
    answers = [nearest(queries, rows[part], min(40, len(part))) for part in parts]
    merged = merge([d for d, _ in answers], [part[i] for part, (_, i) in zip(parts, answers)], 40)
    for got, expected in zip(merged, nearest(queries, rows, 40)):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_precision_settings_of_the_user_change_nothing(precision: str) -> None:
    generator = torch.Generator().manual_seed(6)
    rows = torch.randn(400, 256, generator=generator)
    queries = torch.cat([rows[:50] + 1e-3, torch.randn(50, 256, generator=generator)])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            check(queries, rows, 3)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    "case", ["random", "crowded", "mapped", "float64", "shifted", "half", "flat", "wide", "many", "clusters"]
)
def test_memory_stays_within_the_budget(case: str, tmp_path, peak_bytes) -> None:
    budget = 2**22
    generator = torch.Generator().manual_seed(7)
    d, k = {"flat": (1, 2), "wide": (2000, 2), "many": (64, 100)}.get(case, (64, 2))
    n, q = {
        "wide": (60, 50),
        "flat": (9000, 300),
        "crowded": (1500, 60),
        "many": (1500, 60),
        "clusters": (2000, 150),
    }.get(case, (3000, 300))
    rows, queries = torch.randn(n, d, generator=generator), torch.randn(q, d, generator=generator)
    if case == "crowded":
        rows, queries = rows * 1e-5 + 0.5, queries * 1e-5 + 0.5
    if case == "clusters":  # too alike for float32, and no shift helps
        rows, queries = rows * 1e-3, queries * 1e-3
        for x in (rows, queries):
            x[::2] += 1
            x[1::2] -= 1
    if case == "shifted":
        rows, queries = rows + 9, queries + 9
    if case == "float64":
        rows, queries = rows.double(), queries.double()
    data = rows.bfloat16() if case == "half" else rows
    if case == "mapped":
        np.save(tmp_path / "rows.npy", rows.numpy())
        data = np.load(tmp_path / "rows.npy", mmap_mode="r")
    results, norms = q * k * 12, n * 4
    assert peak_bytes(lambda: Reference(data, budget=budget)) <= budget + norms
    reference = Reference(data)
    used = peak_bytes(lambda: nearest(queries, reference, k, budget=budget))
    assert used <= budget + results
    if case == "random":  # the same bound for any number of rows on either side
        queries, data = queries.repeat(2, 1), rows.repeat(2, 1)
        used = peak_bytes(lambda: nearest(queries, data, k, budget=budget))
        assert used <= budget + 2 * (results + norms)


BAD = {
    "k=0 must be from 1 to 10.* Pass k=1.$": lambda q, r: nearest(q, r, 0),
    "k=11 must be from 1 to 10.* Pass k=10.$": lambda q, r: nearest(q, r, 11),
    "empty": lambda q, r: nearest(q, r[:0], 1),
    "rows of shape": lambda q, r: nearest(q[:, :3], r, 1),
    "same shape": lambda q, r: nearest(q.reshape(6, 2, 2), r.reshape(10, 4, 1), 1),
    "Query row 4 contains NaN": lambda q, r: nearest(q.index_fill(0, torch.tensor(4), torch.nan), r, 1),
    "Reference row 7 contains NaN": lambda q, r: nearest(q, r.index_fill(0, torch.tensor(7), torch.inf), 1),
    "Reference row 0 is too large": lambda q, r: nearest(q, r * 1e30 + 1e30, 1),
    "complex": lambda q, r: nearest(q, r.to(torch.complex64), 1),
    "Pass \\[rows": lambda q, r: nearest(q[0, 0], r, 1),
    "at least one number": lambda q, r: nearest(q[:, :0], r[:, :0], 1),
    "Pass budget=[0-9]+.$": lambda q, r: nearest(q, Reference(r), 1, budget=100),
    "too few for one reference row": lambda q, r: nearest(q, r, 1, budget=100),
    "smaller k": lambda q, r: merge([torch.zeros(1, 2)], [torch.zeros(1, 2, dtype=torch.int64)], 3),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str) -> None:
    generator = torch.Generator().manual_seed(8)
    queries, rows = torch.randn(6, 4, generator=generator), torch.randn(10, 4, generator=generator)
    with pytest.raises(UserError, match=case) as error:
        BAD[case](queries, rows)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("d", [3, 3072])
def test_the_budget_that_the_error_names_is_enough(d: int, peak_bytes) -> None:
    rows = Reference(torch.randn(20, d))
    with pytest.raises(UserError, match="Pass budget=") as error:
        nearest(torch.randn(5, d), rows, 3, budget=1)
    least = int(error.value.fix.removeprefix("Pass budget=").removesuffix("."))
    used = peak_bytes(lambda: nearest(torch.randn(5, d), rows, 3, budget=least))
    assert used <= least + 5 * d * 4 + 5 * 3 * 12 + 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_too_alike_for_float32_cost_few_subtractions(dtype: torch.dtype, monkeypatch) -> None:
    # Two clusters on either side of the origin, which no shift brings near it.
    generator = torch.Generator().manual_seed(10)
    centre = torch.randn(1, 64, generator=generator) * torch.tensor([[1.0], [-1.0]])
    rows = (centre.repeat(1000, 1) + 1e-3 * torch.randn(2000, 64, generator=generator)).to(dtype)
    queries = (centre.repeat(100, 1) + 1e-3 * torch.randn(200, 64, generator=generator)).to(rows.dtype)
    pairs = []
    subtracted = cascade.subtracted
    monkeypatch.setattr(
        cascade, "subtracted", lambda a, b, i, *args: pairs.append(len(i)) or subtracted(a, b, i, *args)
    )
    check(queries.double() if dtype == torch.float64 else queries.float(), rows, 3)
    assert sum(pairs) < 200 * (1000 if dtype == torch.bfloat16 else 40)  # bfloat16 leaves exact ties
