"""Kernel distance and its influences against float64 sums over all pairs, torch-fidelity, and redraws; extrapolated Fréchet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_kid import kernel_poly, mmd2

from fm_lightning.errors import UserError
from fm_lightning.flow import integrate
from fm_lightning.metrics import GaussianReference, RawFeatures, extrapolated_distance, moments
from fm_lightning.metrics.mmd import KernelDistance, KernelReference, kernel_distance, kernel_key


def features(n, d, seed, scale=1.0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).float()


def by_pairs(x, y):
    """Distance and influences, pair by pair in float64."""
    x, y = x.double().numpy(), y.double().numpy()
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    n, m = xy.shape
    among_x, among_y = (xx.sum(1) - xx.diagonal()) / (n - 1), (yy.sum(1) - yy.diagonal()) / (m - 1)
    q, r = 2 * (among_x - xy.mean(1)), 2 * (among_y - xy.mean(0))
    return among_x.mean() + among_y.mean() - 2 * xy.mean(), q - q.mean(), r - r.mean()


@settings(max_examples=50, deadline=None)
@given(
    n=st.sampled_from([2, 3, 7, 16, 33]),
    m=st.sampled_from([2, 5, 16, 29]),
    d=st.sampled_from([1, 3, 64]),
    block=st.sampled_from([1, 4, 7, 1000]),
    shift=st.sampled_from([0.0, 0.7]),
)
def test_equals_the_sum_over_all_pairs(n, m, d, block, shift):
    x, y = features(n, d, n, shift=shift), features(m, d, m + 1, 0.9)
    want = by_pairs(x, y)
    got = KernelReference(y, block).estimate(x)
    size = 1 + max(abs(w).max() for w in want)
    assert got.value == pytest.approx(want[0], abs=2e-6 * size)
    for mine, theirs in zip((got.influence, got.reference), want[1:]):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * size)


def test_equals_torch_fidelity():
    x, y = features(200, 48, 0, 0.8, 0.3), features(200, 48, 1)
    parameters = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    xx, xy, yy = (
        kernel_poly(a.double().numpy(), b.double().numpy(), **parameters) for a, b in ((x, x), (x, y), (y, y))
    )
    assert kernel_distance(x, y) == pytest.approx(mmd2(xx, xy, yy), rel=1e-5)


@pytest.mark.parametrize("side", ["samples", "reference"])
def test_influences_have_the_spread_of_redraws(side):
    """Of the difference of two paired rows, which is what is judged."""
    d, n, m, repetitions = 6, 150, 150, 200
    fixed_x, fixed_y = features(n, d, 1), features(m, d, 2)
    values, spreads = [], []
    for r in range(repetitions):
        x = features(n, d, 100 + r) if side == "samples" else fixed_x
        y = features(m, d, 100 + r) if side == "reference" else fixed_y
        noise = features(n, d, 9000 + r if side == "samples" else 3)
        reference = KernelReference(y)
        first, second = reference.estimate(x), reference.estimate(0.8 * x + 0.5 * noise)
        values.append(second.value - first.value)
        of = {"samples": "influence", "reference": "reference"}[side]
        difference = getattr(second, of) - getattr(first, of)
        spreads.append(float(difference.std(ddof=1)) / len(difference) ** 0.5)
    assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.2)


def test_it_is_unbiased():
    values = [kernel_distance(features(20, 4, 2 * r), features(30, 4, 2 * r + 1)) for r in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_rounded_products_do_not_reach_it():
    """float32 products that a user allows to be rounded would be off by more than schedules differ."""
    x, y = features(64, 512, 0, shift=1.0), features(64, 512, 1, shift=1.0)
    want, before = kernel_distance(x, y), torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert kernel_distance(x, y) == want
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_memory_is_bounded_by_the_block(peak_bytes):
    x, y = features(3000, 8, 0), features(3000, 8, 1)
    reference = KernelReference(y, block=200)
    assert peak_bytes(lambda: reference.estimate(x)) < 3 * 4 * 200**2 + 20 * 8 * 3000


def test_the_metric_keeps_features_and_summarizes_them():
    real, x1 = features(60, 3, 0), features(41, 3, 1, 0.5)
    metric = KernelDistance(RawFeatures(), real)
    for rows in torch.arange(41).flip(0).split(9):
        metric.update(integrate(lambda x, t, y: torch.zeros_like(x), x1[rows], seeds=rows))
    assert metric.compute() == {"kd_raw": pytest.approx(kernel_distance(x1, real), rel=1e-6)}
    columns = metric.measure(x1)
    assert torch.equal(columns["features"], x1)
    assert metric.measure(x1[:0])["features"].shape == (0, 3)
    assert metric.summarize(columns) == {"kd_raw": kernel_distance(x1, real)}


@pytest.mark.parametrize(
    ("frechet", "kernel"), [("fid", "kid"), ("fid_clip", "kid_clip"), ("fd_digits", "kd_digits"), ("mine", "kd_mine")]
)
def test_its_name(frechet, kernel):
    assert kernel_key(frechet) == kernel


def test_what_is_refused():
    with pytest.raises(UserError, match="at least two rows"):
        KernelReference(features(1, 3, 0))
    with pytest.raises(UserError, match="at least two rows"):
        kernel_distance(features(1, 3, 0), features(5, 3, 0))
    with pytest.raises(UserError, match="4 features and the reference 3"):
        kernel_distance(features(5, 4, 0), features(5, 3, 0))
    broken = features(5, 3, 0)
    broken[3, 1] = torch.nan
    with pytest.raises(UserError, match="Row 3"):
        kernel_distance(broken, features(5, 3, 0))


# ---------------------------------------------------------------- extrapolated Fréchet


def true_distance(d, scale):
    return d * (1 - scale) ** 2


def test_extrapolation_removes_the_bias_that_has_the_wrong_sign():
    """At n = 5 d a small shrink makes the plug-in distance smaller, though the true one grows."""
    d, n, scale = 20, 100, 0.97
    reference = GaussianReference(torch.zeros(d), torch.eye(d))
    plugin, extrapolated = [], []
    for r in range(150):
        x = features(n, d, r)
        plugin.append(reference.distance(*moments(scale * x)) - reference.distance(*moments(x)))
        extrapolated.append(extrapolated_distance(reference, scale * x) - extrapolated_distance(reference, x))
    truth, standard_error = true_distance(d, scale), np.std(extrapolated) / 150**0.5
    assert np.mean(plugin) < 0 < truth
    assert abs(np.mean(extrapolated) - truth) < 3 * standard_error + 0.1 * abs(np.mean(plugin) - truth)


def test_the_halves_are_even_and_odd_places():
    x = features(41, 3, 0)
    reference = GaussianReference(torch.zeros(3), torch.eye(3))
    plug_in = reference.distance(*moments(x))
    halves = reference.distance(*moments(x[::2])) + reference.distance(*moments(x[1::2]))
    removed = halves / 2 - plug_in
    expected = plug_in - removed + 3 / (4 * 41) * removed
    assert extrapolated_distance(reference, x) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UserError, match="at least 4"):
        extrapolated_distance(reference, x[:3])


def test_the_real_side_s_contributions_have_the_spread_of_redraws():
    d, m = 4, 400
    x = features(500, d, 0, 0.7, 0.2)
    values, spreads = [], []
    for r in range(150):
        real = features(m, d, 10 + r)
        found = GaussianReference(*moments(real)).estimate(x, real)
        values.append(found.value)
        spreads.append(found.reference.std() / m**0.5)
    assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.2)
    # The distance is symmetric, and so are the contributions.
    swapped = GaussianReference(*moments(x)).estimate(real, x)
    np.testing.assert_allclose(found.reference, swapped.influence, atol=1e-9)
    np.testing.assert_allclose(found.influence, swapped.reference, atol=1e-9)


def test_the_real_side_s_contributions_where_covariances_are_singular():
    """Fewer images than features, as for Inception: the contributions are the changes with an image's weight."""
    m = 60
    x, real = features(300, 80, 0, 0.7, 0.2), features(m, 80, 1)
    found = GaussianReference(*moments(real)).estimate(x, real)
    step = 1e-4
    for i in range(3):  # one image weighs a little more
        weights = torch.full((m, 1), 1.0)
        weights[i] += step * m
        weights = weights.double() / weights.sum()
        mean = (weights * real.double()).sum(0)
        cov = (weights * (real.double() - mean)).T @ (real.double() - mean) * m / (m - 1)
        change = (GaussianReference(mean, cov).distance(*moments(x)) - found.value) / step
        assert change == pytest.approx(found.reference[i], rel=0.03)
