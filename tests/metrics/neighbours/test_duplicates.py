"""Equal rows against comparing all with all, of every type; and their effect on F_mem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.metrics import Groups, MemorizationRate, Reference, find_groups, nearest_distinct
from fm_lightning.metrics.neighbours.duplicates import first_of_equal, row_digests
from fm_lightning.metrics.neighbours.sharded import ShardedReference


def brute(rows, mirrored):
    def same(a, b):
        return torch.equal(a, b) or (mirrored and torch.equal(a, b.flip(-1)))

    return [next(j for j in range(i + 1) if same(rows[i], rows[j])) for i in range(len(rows))]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    width=st.integers(1, 3),
    mirrored=st.booleans(),
    dtype=st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16, torch.bool]),
    seed=st.integers(0, 999),
)
def test_equal_rows_by_comparing_all_with_all(n, width, mirrored, dtype, seed):
    values = torch.randint(0, 2, (n, 1, 2, width), generator=torch.Generator().manual_seed(seed))
    rows = (-values if dtype.is_floating_point else values).to(dtype)  # -0 and 0 are equal
    rows[::2] = rows[::2].abs() if dtype.is_floating_point else rows[::2]
    want = brute(rows, mirrored)
    assert first_of_equal(row_digests(rows, mirrored)).tolist() == want
    if dtype != torch.bool:
        assert Reference(rows).exact_duplicates(mirrored).tolist() == want
        assert ShardedReference(rows, strided=True).exact_duplicates(mirrored).tolist() == want


def test_memory_mapped_rows_and_blocks(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 255, (300, 3, 4, 4), dtype=np.uint8)
    rows[200:250] = rows[50:100]
    np.save(tmp_path / "rows.npy", rows)
    want = [*range(200), *range(50, 100), *range(250, 300)]
    assert Reference(np.load(tmp_path / "rows.npy", mmap_mode="r")).exact_duplicates().tolist() == want
    strided = torch.from_numpy(rows).transpose(2, 3)
    assert first_of_equal(row_digests(strided)).tolist() == want


IMAGES = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_copies_of_images_that_stand_twice_are_copies(mirrored, k):
    """Every image twice, mirrored where training mirrors: F_mem of near-perfect copies was 0."""
    twins = torch.cat([IMAGES, IMAGES.flip(-1) if mirrored else IMAGES])
    generator = torch.Generator().manual_seed(1)
    samples = torch.cat([IMAGES[:20] + 1e-3 * torch.randn(20, 1, 4, 4, generator=generator), 3 * IMAGES[20:]])
    once, twice = MemorizationRate(IMAGES, mirrored=mirrored, k=k), MemorizationRate(twins, mirrored=mirrored, k=k)
    for metric in (once, twice):
        metric.update(samples)
    got = twice.compute()
    assert got.pop("exact_duplicates") == 30
    assert got == once.compute()
    assert got["f_mem"] == pytest.approx(20 / 30)
    assert twice.per_seed()["nearest"][:20].tolist() == list(range(20))


def test_the_encoding_does_not_matter_and_mirrors_are_no_duplicates_unless_asked():
    pixels = torch.randint(0, 255, (9, 1, 4, 4), dtype=torch.uint8)
    data = torch.cat([pixels, pixels[:4], pixels[:2].flip(-1)])
    reference = Reference(data, encode=lambda x: x.float() / 127.5 - 1)
    assert MemorizationRate(reference).exact_duplicates == 4
    assert MemorizationRate(reference, mirrored=True).exact_duplicates == 6


@pytest.mark.parametrize("alike", [3, 40, 150])
@pytest.mark.parametrize("mirrored", [False, True])
def test_one_image_many_times(alike, mirrored):
    """The nearest different images are found however many equal ones come first."""
    blank = torch.zeros(alike, 1, 4, 4)
    reference = torch.cat([IMAGES[:10], blank, IMAGES[10:]])
    samples = torch.cat([IMAGES[:5] + 0.1, 0.05 * IMAGES[:7]])
    metric = MemorizationRate(reference, mirrored=mirrored, k=3)
    found = metric.measure(samples)
    want = MemorizationRate(torch.cat([IMAGES[:10], blank[:1], IMAGES[10:]]), mirrored=mirrored, k=3).measure(samples)
    assert metric.exact_duplicates == alike - 1
    for name in ("d1", "d2", "d3"):
        assert torch.equal(found[name], want[name])


def test_near_duplicates_of_equal_images_keep_them_one():
    """Groups that give two equal images to different leaders, as a nearer leader in between may bring about."""
    line = torch.tensor([0.0, 9.0, 50.0, 120.0, 200.0, 290.0])[:, None]
    groups = Groups(torch.tensor([0, 1, 2, 3, 4, 5, 1]), 1.0)
    metric = MemorizationRate(torch.cat([line, line[:1]]), leave_out_duplicates=groups)
    assert metric.groups.leader.tolist() == [0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (IMAGES[:1], {}, "1 training image is too few"),
        (IMAGES[:1].repeat(5, 1, 1, 1), {}, "5 training images are all equal"),
        (
            torch.cat([IMAGES[:1], IMAGES[:1].flip(-1)]),
            {"mirrored": True},
            "2 training images are all equal",
        ),
        (IMAGES[:3].repeat(2, 1, 1, 1), {"k": 4}, "k=4 must be from 2 to 3"),
        (torch.randn(4, 2), {"mirrored": True}, "have no mirror images"),
    ],
)
def test_too_few_different_images(rows, options, message):
    with pytest.raises(UserError, match=message) as error:
        MemorizationRate(rows, **options)
    assert "\n" not in str(error.value)


def test_the_search_for_near_duplicates_says_how_long_it_takes(monkeypatch):
    said = []
    reference = Reference(torch.randn(600, 3, generator=torch.Generator().manual_seed(2)))
    find_groups(reference, 0.5, say=said.append)
    assert not said  # a moment
    monkeypatch.setattr("fm_lightning.metrics.neighbours.distinct.PATIENCE", 0)
    find_groups(reference, 0.5, say=said.append)
    assert len(said) == 1
    assert "600 training images" in said[0]


def test_integer_samples_and_a_reference_as_stored():
    pixels = torch.randint(0, 255, (20, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    metric = MemorizationRate(pixels)
    metric.update(pixels[:10])
    assert metric.compute()["f_mem"] == 1.0
    near, index = nearest_distinct(pixels[:4], Reference(pixels), 2)
    assert near[:, 0].tolist() == [0] * 4
    assert index[:, 0].tolist() == [0, 1, 2, 3]
