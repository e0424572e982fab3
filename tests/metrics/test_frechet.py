"""Fréchet distance against scipy's matrix square root in float64, and the class on known Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.metrics import FrechetDistance, GaussianReference, frechet_distance
from fm_lightning.trajectory import Trajectory


def reference_distance(mu1, cov1, mu2, cov2):
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    return float(((mu1 - mu2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * np.trace(root).real)


def gaussian(d, seed, rank=None, scale=1.0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((d, rank or d)) * scale
    return rng.standard_normal(d), a @ a.T / (rank or d)


def ours(*args):
    return float(frechet_distance(*(torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in args)))


def trajectory(x1, start=0):
    n = len(x1)
    return Trajectory(
        x1=x1,
        energy=torch.rand(3, n),
        field_energy=torch.rand(n),
        displacement=torch.rand(n),
        times=torch.linspace(0, 1, 4, dtype=torch.float64),
        gain=torch.ones(3, dtype=torch.float64),
        nfe=3,
        seeds=torch.arange(start, start + n),
    )


@settings(max_examples=60, deadline=None)
@given(d=st.integers(1, 40), seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_full_rank_equals_scipy(d, seed, scale):
    first, second = gaussian(d, seed, d + 3, scale), gaussian(d, seed + 1, d + 5, scale)
    want = reference_distance(*first, *second)
    size = np.trace(first[1]) + np.trace(second[1])
    assert ours(*first, *second) == pytest.approx(want, rel=1e-7, abs=1e-7 * size)


def test_one_dimension_has_a_closed_form():
    got = ours([1.0], [[4.0]], [3.0], [[0.25]])
    assert got == pytest.approx((1 - 3) ** 2 + (2 - 0.5) ** 2, rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    a, b = np.array([1.0, 4.0, 0.0, 9.0]), np.array([0.25, 0.0, 0.0, 16.0])
    q = scipy.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    got = ours(np.zeros(4), q @ np.diag(a) @ q.T, np.zeros(4), q @ np.diag(b) @ q.T)
    assert got == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize(("d", "r1", "r2"), [(20, 3, 20), (20, 20, 3), (30, 5, 7), (12, 1, 1), (8, 8, 0)])
def test_rank_deficient_covariances(d, r1, r2):
    """tr sqrt(C1 C2) is the sum of the singular values of A1^T A2 where C = A A^T."""
    rng = np.random.default_rng(d + r1 + r2)
    a1, a2 = rng.standard_normal((d, r1)), rng.standard_normal((d, r2))
    mu1, mu2 = rng.standard_normal(d), rng.standard_normal(d)
    cross = np.linalg.svd(a1.T @ a2, compute_uv=False).sum() if r1 and r2 else 0.0
    want = ((mu1 - mu2) ** 2).sum() + (a1**2).sum() + (a2**2).sum() - 2 * cross
    assert ours(mu1, a1 @ a1.T, mu2, a2 @ a2.T) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("rank", [30, 4])
def test_equal_gaussians_have_no_distance(rank):
    mu, cov = gaussian(30, 0, rank)
    assert ours(mu, cov, mu, cov) == pytest.approx(0, abs=1e-5 * np.trace(cov))


def test_symmetry():
    first, second = gaussian(15, 1), gaussian(15, 2)
    assert ours(*first, *second) == pytest.approx(ours(*second, *first), rel=1e-8)


# ---------------------------------------------------------------- the class


class Features(torch.nn.Module):
    """A fixed map from samples [B, 4] to features [B, D]."""

    key = "fd_test"

    def __init__(self, d, seed=0):
        super().__init__()
        self.register_buffer("w", torch.from_numpy(np.random.default_rng(seed).standard_normal((4, d))).float())

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.w)


def value(metric):
    return float(metric.compute()["fd_test"])


def fit(features):
    f = features.double().numpy()
    return f.mean(0), np.cov(f, rowvar=False).reshape(f.shape[1], f.shape[1])


@pytest.mark.parametrize("d", [1, 3, 16])
@pytest.mark.parametrize("batch", [300, 37, 1])
def test_the_class_equals_the_formula_on_features(d, batch):
    net = Features(d)
    rng = np.random.default_rng(1)
    real, fake = (torch.from_numpy(rng.standard_normal((300, 4)) * s + m).float() for s, m in ((1, 0), (0.7, 0.4)))
    metric = FrechetDistance(net, net(real))
    for i in range(0, 300, batch):
        metric.update(trajectory(fake[i : i + batch], i))
    want = reference_distance(*fit(net(fake)), *fit(net(real)))
    assert value(metric) == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_fewer_samples_than_features():
    net = Features(64)
    rng = np.random.default_rng(1)
    real, fake = (torch.from_numpy(rng.standard_normal((n, 4)) + m).float() for n, m in ((400, 0), (20, 0.4)))
    metric = FrechetDistance(net, net(real))
    metric.update(trajectory(fake))
    (mu1, c1), (mu2, c2) = fit(net(fake)), fit(net(real))
    a1 = (net(fake).double().numpy() - mu1).T / np.sqrt(19)
    a2 = (net(real).double().numpy() - mu2).T / np.sqrt(399)
    cross = np.linalg.svd(a1.T @ a2, compute_uv=False).sum()
    want = ((mu1 - mu2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross
    assert value(metric) == pytest.approx(want, rel=1e-4)


def test_the_distance_to_itself_is_zero_and_grows_with_noise():
    net = Features(8)
    rng = np.random.default_rng(1)
    real = torch.from_numpy(rng.standard_normal((500, 4))).float()
    values = []
    for sigma in (0.0, 0.1, 0.3, 1.0):
        metric = FrechetDistance(net, net(real))
        metric.update(trajectory(real + sigma * torch.from_numpy(rng.standard_normal((500, 4))).float()))
        values.append(value(metric))
    assert values[0] == pytest.approx(0, abs=1e-4)
    assert values == sorted(values)
    assert values[-1] > 0.05


def test_reset_forgets_samples_but_not_the_reference():
    net = Features(8)
    rng = np.random.default_rng(1)
    real, fake = (torch.from_numpy(rng.standard_normal((100, 4)) + m).float() for m in (0, 0.5))
    metric = FrechetDistance(net, net(real))
    metric.update(trajectory(real * 5))
    metric.reset()
    metric.update(trajectory(fake))
    want = reference_distance(*fit(net(fake)), *fit(net(real)))
    assert value(metric) == pytest.approx(want, rel=1e-4)


def test_no_weights_in_the_state_dict():
    net = Features(8)
    metric = FrechetDistance(net, net(torch.randn(50, 4)))
    metric.update(trajectory(torch.randn(10, 4)))
    assert not metric.state_dict()


# ---------------------------------------------------------------- paired differences


class Raw(torch.nn.Module):
    key = "fd_test"

    def forward(self, x):
        return x.flatten(1)


D = 3
REAL = torch.from_numpy(np.random.default_rng(99).standard_normal((4000, D)) * np.array([1.0, 0.5, 2.0])).float()


def two_schedules(seeds, rng):
    """Two samplers of the same noise: one a bit too narrow and shifted, one a bit noisier."""
    z = rng.standard_normal((seeds, D)) * np.array([1.0, 0.5, 2.0])
    first = 0.9 * z + np.array([0.1, 0.0, 0.1])
    return torch.from_numpy(first).float(), torch.from_numpy(first + 0.25 * rng.standard_normal(z.shape)).float()


def change(here, there):
    return here.change(here.per_seed(), there.per_seed())


def measured(x, order=None):
    metric = FrechetDistance(Raw(), REAL)
    rows = torch.arange(len(x)) if order is None else order
    for part in rows.split(100):
        t = trajectory(x[part])
        metric.update(Trajectory(**{**vars(t), "seeds": part}))
    return metric


def test_the_change_is_the_difference_of_the_two_values():
    first, second = two_schedules(300, np.random.default_rng(0))
    a, b = measured(first), measured(second)
    there = change(b, a)
    assert there.value == pytest.approx(value(b) - value(a), rel=1e-9)
    assert there.low < there.value < there.high
    back = change(a, b)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), rel=1e-9)
    same = change(a, measured(first))
    assert (same.value, same.low, same.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_pairs_are_found_by_seed_and_not_by_order():
    first, second = two_schedules(300, np.random.default_rng(0))
    order = torch.from_numpy(np.random.default_rng(1).permutation(300))
    straight, mixed = (
        change(measured(second), measured(first)),
        change(measured(second, order), measured(first)),
    )
    assert tuple(mixed) == pytest.approx(tuple(straight), rel=1e-7)


def test_the_paired_interval_covers_and_has_the_right_width():
    """Blocks of seeds: differences spread as each block's interval says, which covers their mean."""
    rng = np.random.default_rng(5)
    changes = []
    for _ in range(250):
        first, second = two_schedules(300, rng)
        changes.append(change(measured(second), measured(first)))
    values = np.array([c.value for c in changes])
    truth = values.mean()
    spread = np.mean([c.high - c.low for c in changes]) / 2 / 1.96
    assert spread == pytest.approx(values.std(ddof=1), rel=0.15)
    covered = np.mean([c.low <= truth <= c.high for c in changes])
    assert 0.91 <= covered <= 0.985  # 0.95 +- 2.8 standard errors


def test_the_paired_interval_agrees_with_a_bootstrap():
    n = 400
    first, second = two_schedules(n, np.random.default_rng(7))
    paired = change(measured(second), measured(first))
    mu, cov = fit(REAL)
    rng = np.random.default_rng(8)
    boot = []
    for _ in range(300):
        rows = torch.from_numpy(rng.integers(n, size=n))
        boot.append(reference_distance(*fit(second[rows]), mu, cov) - reference_distance(*fit(first[rows]), mu, cov))
    assert (paired.high - paired.low) / 2 == pytest.approx(1.96 * np.std(boot, ddof=1), rel=0.15)


@pytest.mark.parametrize(("n", "d"), [(500, 3), (500, 1), (300, 16)])
def test_influence_is_the_derivative_with_respect_to_a_sample_s_weight(n, d):
    """Raising the weight of one row by a little changes the distance by that much times its influence."""
    rng = np.random.default_rng(n + d)
    features = rng.standard_normal((n, d)) * np.linspace(0.5, 1.5, d) + 0.2
    real = gaussian(d, 5, d + 2)
    reference = GaussianReference(*(torch.from_numpy(a) for a in real))
    found = reference.estimate(torch.from_numpy(features))
    value, contributions = found.value, found.influence
    assert value == pytest.approx(reference_distance(*fit(torch.from_numpy(features)), *real), rel=1e-9)
    got = contributions

    def distance(weights):
        w = weights / weights.sum()
        mean = w @ features
        cov = (features - mean).T @ ((features - mean) * w[:, None])
        return reference_distance(mean, cov, *real)

    slopes, h = [], 1e-4
    for i in range(40):
        up, down = np.ones(n), np.ones(n)
        up[i] += h
        down[i] -= h
        slopes.append(n * (distance(up) - distance(down)) / (2 * h))
    # n against n - 1 in the covariance leaves a difference of order 1 / n.
    np.testing.assert_allclose(got[:40], slopes, rtol=0.02, atol=0.02 * np.abs(got).max())


@pytest.mark.parametrize("shift", [0, 1000])
def test_unlike_seeds_cannot_be_paired(shift):
    """Fewer seeds, or equally many other seeds: the difference would not be paired."""
    first, second = two_schedules(60, np.random.default_rng(0))
    other = FrechetDistance(Raw(), REAL)
    other.update(trajectory(second if shift else second[:50], shift))
    with pytest.raises(UserError):
        change(other, measured(first))


def test_one_sample_has_no_covariance():
    with pytest.raises(UserError):
        measured(torch.zeros(1, D)).compute()
