"""Local support against float64 brute force, in one pass, in any space, and its cost compared with the neighbours alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.extractor import RawFeatures
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.neighbours.density import TOLERANCE, nearest_with_kernel_sums
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest
from fm_lightning.metrics.support import LocalSupport


def brute(x, reference, k, h):
    """Support and log density in float64."""
    x, reference = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (x, reference))
    d = cdist(x, reference)
    n, size = reference.shape
    density = logsumexp(-(d**2) / (2 * h**2), axis=1) - math.log(n) - size / 2 * math.log(2 * math.pi * h**2)
    return -np.sort(d, 1)[:, :k].mean(1), density


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40),
    m=st.integers(2, 80),
    d=st.integers(1, 30),
    offset=st.sampled_from([0.0, 50.0]),
    factor=st.sampled_from([0.2, 1.0, 5.0]),
    seed=st.integers(0, 10**6),
)
def test_columns_equal_brute_force(n, m, d, offset, factor, seed):
    rng = np.random.default_rng(seed)
    reference = torch.from_numpy(rng.standard_normal((m, d)) + offset).float()
    x = torch.from_numpy(rng.standard_normal((n, d)) * 2 + offset).float()
    x[: n // 2] = reference[torch.from_numpy(rng.integers(m, size=n // 2))]  # copies, too
    k = (1, min(3, m))
    metric = LocalSupport(reference, k=k, bandwidths=(factor, 1.5))
    columns = metric.measure(x)
    for i in k:
        np.testing.assert_allclose(columns[f"knn_{i}"], brute(x, reference, i, 1.0)[0], rtol=1e-5, atol=1e-6)
    for b in (factor, 1.5):
        expected = brute(x, reference, 1, b * metric.unit)[1]
        # float32 products in few dimensions: far better than what is guaranteed, relative to the exponent.
        np.testing.assert_allclose(columns[f"kde_{b:g}"], expected, atol=1e-3 + 1e-6 * np.abs(expected).max())


def test_the_density_is_sklearns():
    rng = np.random.default_rng(0)
    reference, x = rng.standard_normal((200, 2)), rng.standard_normal((30, 2))
    metric = LocalSupport(torch.from_numpy(reference), k=(5,), bandwidths=(1.0,))
    theirs = KernelDensity(bandwidth=metric.unit, rtol=1e-12).fit(reference).score_samples(x)
    # Its trees stop early where the density is small.
    np.testing.assert_allclose(metric.measure(torch.from_numpy(x))["kde_1"], theirs, atol=5e-3)


def test_the_unit_is_the_median_nearest_neighbour():
    reference = torch.tensor([[0.0], [1.0], [3.0], [7.0], [8.0]])
    assert LocalSupport(reference, k=(1,)).unit == 1  # of 1, 1, 2, 1, 1
    many = torch.randn(1000, 3)
    others = torch.cdist(many, many).fill_diagonal_(torch.inf).amin(1)
    assert LocalSupport(many, k=(1,)).unit == pytest.approx(float(others[::4].median()), rel=1e-5)


def test_narrow_kernels_far_out_are_taken_in_float64():
    """In float32 the products would move these exponents by whole units."""
    rng = np.random.default_rng(1)
    centre = 300 * rng.standard_normal((4, 50))
    rows = torch.from_numpy(centre[rng.integers(4, size=400)] + 0.01 * rng.standard_normal((400, 50))).float()
    x = rows[::7] + 1e-3
    h = 0.02
    _, _, sums = nearest_with_kernel_sums(x, Reference(rows), 1, [h])
    expected = logsumexp(-(cdist(x.double(), rows.double()) ** 2) / (2 * h**2), axis=1)
    np.testing.assert_allclose(sums[:, 0], expected, atol=1e-3)
    assert Reference(rows).norms.max() * 2 * 50 * 2**-24 / (2 * h**2) > TOLERANCE, "the case needs it"


def test_small_blocks_give_the_same():
    rng = torch.Generator().manual_seed(2)
    rows, x = torch.randn(3001, 40, generator=rng), torch.randn(203, 40, generator=rng)
    reference = Reference(rows)
    whole = nearest_with_kernel_sums(x, reference, 4, [2.0, 5.0])
    small = nearest_with_kernel_sums(x, reference, 4, [2.0, 5.0], budget=2**19)
    assert torch.equal(whole[0], small[0])
    assert torch.equal(whole[1], small[1])
    torch.testing.assert_close(whole[2], small[2], rtol=1e-5, atol=1e-4)
    assert torch.equal(whole[0], nearest(x, reference, 4)[0])


def test_batches_and_summaries():
    rng = torch.Generator().manual_seed(3)
    reference, x = torch.randn(100, 1, 2, 2, generator=rng), torch.randn(23, 1, 2, 2, generator=rng)
    metric = LocalSupport(reference, k=(3,), bandwidths=(1.0,))
    for part in (x[:10], x[:0], x[10:]):
        metric.update(part)
    numbers, columns = metric.compute(), metric.measure(x)
    assert numbers.keys() == {"knn_3_mean", "kde_1_mean", "knn_3_median", "kde_1_median"}
    assert numbers["knn_3_mean"] == pytest.approx(float(columns["knn_3"].mean()), rel=1e-5)
    assert numbers["kde_1_median"] == pytest.approx(float(columns["kde_1"].median()), abs=1e-4)


def test_any_space():
    rng = torch.Generator().manual_seed(4)
    reference, x = torch.randn(50, 1, 4, 4, generator=rng), torch.randn(7, 1, 4, 4, generator=rng)
    pooled = RawFeatures(2)
    there = LocalSupport(pooled(reference), k=(2,), space=FeatureSpace(pooled))
    plain = LocalSupport(pooled(reference), k=(2,))
    torch.testing.assert_close(there.measure(x), plain.measure(pooled(x)))
    prints = {
        LocalSupport(pooled(reference), k=k, bandwidths=b).fingerprint for k in ((2,), (3,)) for b in ((), (1.0,))
    }
    assert len(prints) == 4
    assert LocalSupport(reference[1:], k=(2,)).fingerprint not in prints


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: LocalSupport(r, k=(11,)), r"k=\[11\] must be numbers from 1 to 10"),
        (lambda r: LocalSupport(r, k=()), "must be numbers from 1"),
        (lambda r: LocalSupport(r, bandwidths=(0.0,), k=(1,)), "must be positive"),
        (lambda r: LocalSupport(r.repeat(2, 1), k=(1,)), "Half the reference"),
        (lambda r: LocalSupport(r[:1], k=(1,)), "One reference sample"),
        (lambda r: LocalSupport(r, k=(1,)).measure(torch.zeros(3, 5)), "5 numbers each and the reference 3"),
    ],
)
def test_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(torch.randn(10, 3))
