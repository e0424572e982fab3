"""Fréchet distance against scipy's matrix square root in float64, and the class on known Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.metrics import FrechetDistance, frechet_distance
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

    def __init__(self, d, seed=0):
        super().__init__()
        self.register_buffer(
            "w", torch.from_numpy(np.random.default_rng(seed).standard_normal((4, d))).float()
        )

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.w)


def value(metric):
    got = metric.compute()
    if isinstance(got, dict):
        singles = [v for v in got.values() if torch.as_tensor(v).numel() == 1]
        got = singles[0]
    return float(got)


def fit(features):
    f = features.double().numpy()
    return f.mean(0), np.cov(f, rowvar=False).reshape(f.shape[1], f.shape[1])


@pytest.mark.parametrize("d", [1, 3, 16])
@pytest.mark.parametrize("batch", [300, 37, 1])
def test_the_class_equals_the_formula_on_features(d, batch):
    net = Features(d)
    rng = np.random.default_rng(1)
    real, fake = (
        torch.from_numpy(rng.standard_normal((300, 4)) * s + m).float() for s, m in ((1, 0), (0.7, 0.4))
    )
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
