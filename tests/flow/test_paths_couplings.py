"""The linear bridge by its formula, and couplings against a search over every permutation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import Independent, LinearPath, OptimalTransport, Schedule, integrate
from fm_lightning.nets import ResidualMLP

SHAPES = [(1, 1), (1, 3), (3, 2), (5, 1, 4, 4), (7, 3, 5, 3), (64, 2)]


def draw(shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


# ---------------------------------------------------------------- path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.0, 1e-4, 0.1, 0.9])
def test_bridge_and_target_by_element(shape, sigma):
    x0, x1 = draw(shape, 1), draw(shape, 2)
    t = torch.from_numpy(np.random.default_rng(3).random(shape[0]))
    xt, ut = LinearPath(sigma)(x0, x1, t)
    assert xt.shape == ut.shape == x1.shape
    for i in range(shape[0]):
        ti = float(t[i])
        np.testing.assert_allclose(xt[i], (1 - (1 - sigma) * ti) * x0[i].numpy() + ti * x1[i].numpy(), rtol=1e-12)
        np.testing.assert_allclose(ut[i], x1[i].numpy() - (1 - sigma) * x0[i].numpy(), rtol=1e-12, atol=1e-14)


def test_the_default_leaves_no_noise():
    x0, x1 = draw((4, 3), 1), draw((4, 3), 2)
    path = LinearPath()
    torch.testing.assert_close(path(x0, x1, torch.zeros(4).double())[0], x0, rtol=0, atol=0)
    torch.testing.assert_close(path(x0, x1, torch.ones(4).double())[0], x1, rtol=0, atol=0)
    torch.testing.assert_close(path(x0, x1, torch.full((4,), 0.3).double())[1], x1 - x0, rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_the_target_is_the_bridge_s_derivative(sigma):
    x0, x1, h = draw((6, 5), 1), draw((6, 5), 2), 1e-5
    t = torch.linspace(0.1, 0.9, 6).double()
    path = LinearPath(sigma)
    slope = (path(x0, x1, t + h)[0] - path(x0, x1, t - h)[0]) / (2 * h)
    torch.testing.assert_close(path(x0, x1, t)[1], slope, rtol=1e-8, atol=1e-8)


def test_sigma_min_is_what_stays_of_the_noise():
    x0, x1 = draw((20_000, 2), 1), torch.ones(20_000, 2).double()
    end = LinearPath(0.2)(x0, x1, torch.ones(20_000).double())[0]
    assert float((end - x1).std()) == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_stays(dtype):
    xt, ut = LinearPath(0.1)(draw((3, 2), 1, dtype), draw((3, 2), 2, dtype), torch.rand(3, dtype=dtype))
    assert xt.dtype == ut.dtype == dtype


@pytest.mark.parametrize("sigma", [-0.1, 1.0, float("nan")])
def test_bad_sigma_is_refused(sigma):
    with pytest.raises(UserError, match="sigma_min"):
        LinearPath(sigma)


# ---------------------------------------------------------------- couplings


def cost(x0, x1):
    return float((x0.double() - x1.double()).square().sum())


def find(rows, pool):
    """The index in `pool` of each of `rows`; fails where a row is not one of them."""
    index = [int((pool.flatten(1) == row.flatten()).all(1).nonzero()[0]) for row in rows]
    return index


@pytest.mark.parametrize("coupling", [Independent(), OptimalTransport()])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_coupling_permutes_the_noise_and_leaves_the_data(coupling, shape):
    x0, x1 = draw(shape, 1, torch.float32), draw(shape, 2, torch.float32)
    before = x0.clone(), x1.clone()
    out = coupling(x0, x1)
    assert out.shape == x0.shape
    assert out.dtype == x0.dtype
    assert sorted(find(out, x0)) == list(range(shape[0]))
    assert torch.equal(x0, before[0])
    assert torch.equal(x1, before[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_independent_is_the_identity(shape):
    x0 = draw(shape, 1)
    assert torch.equal(Independent()(x0, draw(shape, 2)), x0)


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(1, 6),
    shape=st.sampled_from([(1,), (2,), (5,), (1, 3, 3)]),
    seed=st.integers(0, 10**6),
    offset=st.sampled_from([0.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_optimal_transport_is_the_cheapest_of_all_permutations(n, shape, seed, offset, dtype):
    x0, x1 = draw((n, *shape), seed, dtype), draw((n, *shape), seed + 1, dtype) + offset
    best = min(cost(x0[list(p)], x1) for p in itertools.permutations(range(n)))
    assert cost(OptimalTransport()(x0, x1), x1) == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_optimal_transport_on_a_line_sorts():
    x0, x1 = draw((101, 1), 1), draw((101, 1), 2)
    out = OptimalTransport()(x0, x1)
    assert torch.equal(out[x1[:, 0].argsort(), 0], x0[:, 0].sort().values)


def test_optimal_transport_costs_less_than_chance_and_is_idempotent():
    x0, x1 = draw((64, 2), 1), draw((64, 2), 2)
    out = OptimalTransport()(x0, x1)
    assert cost(out, x1) < 0.5 * cost(x0, x1)
    assert torch.equal(OptimalTransport()(out, x1), out)


def test_optimal_transport_with_equal_points():
    x0 = draw((4, 2), 1)[[0, 0, 1, 2]]
    x1 = draw((4, 2), 2)[[0, 1, 1, 1]]
    out = OptimalTransport()(x0, x1)
    assert sorted(map(tuple, out.tolist())) == sorted(map(tuple, x0.tolist()))
    assert cost(out, x1) == pytest.approx(min(cost(x0[list(p)], x1) for p in itertools.permutations(range(4))))


# ---------------------------------------------------------------- couplings of labelled data


@settings(max_examples=80, deadline=None)
@given(y=st.lists(st.sampled_from([0, 3, 7]), min_size=1, max_size=7), seed=st.integers(0, 10**6))
def test_with_labels_optimal_transport_is_the_cheapest_permutation_within_the_classes(y, seed):
    n = len(y)
    x0, x1 = draw((n, 2), seed), draw((n, 2), seed + 1)
    within = [p for p in itertools.permutations(range(n)) if all(y[i] == y[j] for i, j in enumerate(p))]
    out = OptimalTransport()(x0, x1, torch.tensor(y))
    assert all(y[i] == y[j] for i, j in enumerate(find(out, x0)))
    assert cost(out, x1) == pytest.approx(min(cost(x0[list(p)], x1) for p in within), rel=1e-9)
    assert torch.equal(Independent()(x0, x1, torch.tensor(y)), x0)


def test_one_class_is_no_class():
    x0, x1 = draw((20, 3), 1), draw((20, 3), 2)
    assert torch.equal(OptimalTransport()(x0, x1, torch.full((20,), 4)), OptimalTransport()(x0, x1))


def test_a_class_keeps_the_noise_s_distribution():
    """Two classes left and right: coupled over all, each would see one half of the noise."""
    y = torch.arange(400) % 2
    x1 = draw((400, 1), 2) * 0.1 + (2 * y[:, None] - 1)
    x0 = draw((400, 1), 1)
    mixed, kept = OptimalTransport()(x0, x1), OptimalTransport()(x0, x1, y)
    assert float(mixed[y == 0].mean()) < -0.6
    for label in (0, 1):
        assert abs(float(kept[y == label].mean())) < 0.2
        assert float(kept[y == label].std()) == pytest.approx(1, abs=0.15)


def test_samples_end_in_the_class_that_was_asked_for():
    """A small conditional network, trained on four separate Gaussians (coupled over all classes: 87%)."""
    coupling = OptimalTransport()
    torch.manual_seed(0)
    centres = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    net = ResidualMLP([2], width=64, depth=2, num_classes=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(250):
        y = torch.randint(4, (128,))
        x1 = centres[y] + 0.1 * torch.randn(128, 2)
        x0, t = coupling(torch.randn(128, 2), x1, y), torch.rand(128)
        xt, target = LinearPath()(x0, x1, t)
        optimizer.zero_grad()
        (net(xt, t, y) - target).square().mean().backward()
        optimizer.step()
    y = torch.arange(400) % 4
    with torch.no_grad():
        made = integrate(net, torch.randn(400, 2), Schedule(steps=16), labels=y).x1
    assert float((torch.cdist(made, centres).argmin(1) == y).double().mean()) > 0.97
