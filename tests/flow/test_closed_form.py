"""The closed-form velocity against a float64 brute force, near its singularity and in blocks."""

from __future__ import annotations

import decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, EmpiricalVelocity, Schedule, integrate, integrate_many
from fm_lightning.flow.closed_form import softmax_mean


def brute(data, x, t):
    """v* = sum_i w_i (x_i - x) / (1 - t), w = softmax(-||x - t x_i||^2 / (2 (1 - t)^2)); loops in float64."""
    data = np.asarray(data, dtype=np.float64)
    flat = data.reshape(len(data), -1)
    out = []
    for row, time in zip(np.asarray(x, dtype=np.float64).reshape(len(x), -1), np.asarray(t, dtype=np.float64)):
        logits = np.array([-((row - time * p) ** 2).sum() / (2 * (1 - time) ** 2) for p in flat])
        w = np.exp(logits - logits.max())
        w /= w.sum()
        out.append(sum(wi * (p - row) for wi, p in zip(w, flat)) / (1 - time))
    return np.array(out).reshape(x.shape)


def draw(shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def bridge(data, batch, t, seed=1):
    """Points on the way to training points, at the times t [batch]."""
    rng = np.random.default_rng(seed)
    x1 = data[torch.from_numpy(rng.integers(len(data), size=batch))]
    x0 = torch.from_numpy(rng.standard_normal(x1.shape)).to(data)
    t = t.reshape(-1, *[1] * (data.dim() - 1)).to(data)
    return (1 - t) * x0 + t * x1


TIMES = [0.0, 0.1, 0.5, 0.9, 0.99, 0.999]


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize(
    ("n", "shape"), [(1, (3,)), (2, (1,)), (17, (5,)), (23, (2, 3, 5)), (40, (1, 4, 4)), (64, (2,))]
)
def test_float64_equals_brute_force_on_the_bridge(n, shape, t):
    data = draw((n, *shape))
    times = torch.full((6,), t, dtype=torch.float64)
    x = bridge(data, 6, times)
    got = EmpiricalVelocity(data)(x, times)
    assert got.shape == x.shape
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), brute(data, x, times), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 9),
    batch=st.integers(1, 6),
    t=st.lists(st.floats(0, 0.99), min_size=6, max_size=6),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    seed=st.integers(0, 10_000),
)
def test_float64_equals_brute_force_anywhere(n, d, batch, t, scale, seed):
    """Off the bridge too, with a time of its own for every row."""
    data = draw((n, d), seed)
    x = scale * draw((batch, d), seed + 1)
    times = torch.tensor(t[:batch], dtype=torch.float64)
    want = brute(data, x, times)
    got = EmpiricalVelocity(data)(x, times).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * (1 + np.abs(want).max()))


@pytest.mark.parametrize("t", TIMES)
def test_float32_equals_brute_force_on_the_bridge(t):
    data = draw((50, 3, 8, 8), dtype=torch.float32)
    times = torch.full((8,), t)
    x = bridge(data, 8, times)
    got = EmpiricalVelocity(data)(x, times)
    assert got.dtype == torch.float32
    want = brute(data, x, times)
    # (x_i - x) / (1 - t): float32 keeps x_i - x to about 1e-7, so the quotient to about 1e-7 / (1 - t).
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4 + 2e-6 / (1 - t))


@pytest.mark.parametrize("t", [0.5, 0.9, 0.97])
def test_float32_weights_that_are_not_saturated(t):
    """Points so dense that many share the weight: |a|^2 + |b|^2 - 2ab would lose digits."""
    offset = torch.tensor([30.0, -30.0])  # far from the origin, where that cancellation is worst
    data = 0.05 * draw((200, 2), dtype=torch.float32) + offset
    times = torch.full((8,), t)
    x = bridge(data, 8, times)
    want = brute(data, x, times)
    got = EmpiricalVelocity(data)(x, times).numpy()
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("n", [1023, 1025, 4099])
def test_many_points_equal_brute_force(n):
    """More points than a block can hold; the softmax must be one over all of them."""
    data = draw((n, 3, 16, 16), dtype=torch.float32) * 0.2
    times = torch.tensor([0.0, 0.3, 0.6, 0.9])
    x = bridge(data, 4, times)
    want = brute(data, x, times)
    got = EmpiricalVelocity(data)(x, times).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_many_points_with_shared_weight():
    """At t = 0 every point weighs the same; the mean must be the mean of all, for any block size."""
    data = draw((10_007, 12), dtype=torch.float32) + 3
    x = draw((5, 12), 1, torch.float32)
    got = EmpiricalVelocity(data)(x, torch.zeros(5))
    torch.testing.assert_close(got.double(), data.double().mean(0) - x.double(), rtol=1e-4, atol=1e-4)


def test_rows_do_not_know_each_other():
    data = draw((30, 4))
    times = torch.tensor([0.0, 0.5, 0.99, 0.2, 0.7], dtype=torch.float64)
    x = bridge(data, 5, times)
    field = EmpiricalVelocity(data)
    whole = field(x, times)
    for i in range(5):
        torch.testing.assert_close(field(x[i : i + 1], times[i : i + 1]), whole[i : i + 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [1 - 1e-4, 1 - 1e-6])
def test_it_stays_finite_near_the_end(t, dtype):
    data = draw((20, 6), dtype=dtype)
    for x in (bridge(data, 5, torch.full((5,), t, dtype=dtype)), draw((5, 6), 9, dtype), data[:5].clone()):
        v = EmpiricalVelocity(data)(x, torch.full((5,), t, dtype=dtype))
        assert torch.isfinite(v).all()


def test_it_accepts_labels_and_ignores_them():
    data = draw((20, 6))
    x, t = draw((5, 6), 1), torch.full((5,), 0.3, dtype=torch.float64)
    field = EmpiricalVelocity(data)
    assert torch.equal(field(x, t, torch.arange(5)), field(x, t))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("grid", ["uniform", "cosine"])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((2,), torch.float64), ((3, 6, 6), torch.float32), ((1, 8, 8), torch.float32)]
)
def test_sampling_ends_on_training_points(solver, grid, shape, dtype):
    # Points on a lattice, far apart compared with the last step's 1 - t: nearer ones would share the weight there.
    data = draw((30, *shape), dtype=dtype)
    if shape == (2,):
        data = torch.cartesian_prod(torch.arange(6), torch.arange(5)).to(dtype) / 2 - 1.2
    x0 = draw((40, *shape), 5, dtype)
    traj = integrate(EmpiricalVelocity(data), x0, Schedule(steps=40, solver=solver, grid=grid))
    assert torch.isfinite(traj.energy).all()
    distance = (traj.x1[:, None].double() - data[None].double()).flatten(2).norm(dim=2).min(1).values
    assert float(distance.max()) < 1e-3
    assert (traj.excess >= -1e-4 * traj.kpe).all()


def test_sampling_reaches_more_than_one_point():
    data = draw((5, 2)) * 3
    traj = integrate(EmpiricalVelocity(data), draw((200, 2), 5), Schedule(steps=50))
    nearest = (traj.x1[:, None] - data[None]).norm(dim=2).argmin(1)
    assert len(nearest.unique()) == 5


def test_one_training_point_is_a_straight_line():
    """v = (p - x) / (1 - t) moves along a straight line at constant speed: excess 0, E = |p - x0|^2 / 2."""
    p, x0 = torch.tensor([[1.0, 2.0, -1.0]]).double(), draw((4, 3))
    for solver in ("euler", "midpoint", "heun", "rk4"):
        traj = integrate(EmpiricalVelocity(p), x0, Schedule(steps=10, solver=solver))
        torch.testing.assert_close(traj.x1, p.expand(4, 3), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(traj.kpe, 0.5 * (p - x0).square().sum(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", ["heun", "rk4"])
def test_the_last_step_is_an_euler_step_where_a_stage_would_land_at_the_end(solver):
    """... and is counted as one evaluation."""

    class Watched(EmpiricalVelocity):
        def __call__(self, x, t, y=None):
            times.append(float(t.max()))
            return super().__call__(x, t, y)

    times = []
    traj = integrate(Watched(draw((10, 3))), draw((4, 3), 1), Schedule(steps=6, solver=solver))
    stages = {"heun": 2, "rk4": 4}[solver]
    assert max(times) < 1
    assert len(times) == traj.nfe == 5 * stages + 1


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_with_a_gain_it_stops_short_and_integrate_many_agrees(solver):
    field, x0 = EmpiricalVelocity(draw((10, 3))), draw((4, 3), 1)
    schedules = {
        "base": Schedule(steps=20, solver=solver),
        "kts": Schedule(KTS(0.1, 0.03), steps=20, solver=solver),
        "short": Schedule(steps=20, solver=solver, t_end=0.9),
    }
    many = integrate_many(field, x0, schedules)
    for name, schedule in schedules.items():
        alone = integrate(field, x0, schedule)
        torch.testing.assert_close(many[name].x1, alone.x1, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(many[name].energy, alone.energy, rtol=1e-9, atol=1e-9)
        assert many[name].nfe == alone.nfe
    assert (many["kts"].x1 - many["base"].x1).norm(dim=1).min() > 1e-3


def test_dopri5_comes_close():
    data = draw((10, 3))
    traj = integrate(EmpiricalVelocity(data), draw((6, 3), 1), Schedule(steps=20, solver="dopri5", t_end=0.99))
    assert torch.isfinite(traj.x1).all()
    distance = (traj.x1[:, None] - data[None]).norm(dim=2).min(1).values
    # at t = 0.99 what is left of the noise is 0.01 |x0 - x_i|
    assert float(distance.max()) < 0.1


def test_dopri5_is_refused_where_the_field_does_not_exist():
    with pytest.raises(UserError) as caught:
        integrate(EmpiricalVelocity(draw((10, 3))), draw((6, 3), 1), Schedule(steps=20, solver="dopri5"))
    assert "\n" not in str(caught.value)


def test_an_empty_training_set_is_refused():
    with pytest.raises(UserError):
        EmpiricalVelocity(torch.zeros(0, 3))


def test_a_shared_weight_is_the_same_in_any_block():
    data, x = draw((101, 3)), draw((5, 3), 1)
    t = torch.tensor([0.0, 0.3, 0.6, 0.8, 0.9], dtype=torch.float64)
    want = brute(data, x, t)
    for block in (1, 7, 100, 101, 4096):
        got = EmpiricalVelocity(data, block=block)(x, t).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


def exact(data, x, t):
    """v* at one time in rational arithmetic and 50 digits: float64 could not say which of two roundings is right."""
    out, points = [], [[Fraction(float(p)) for p in point] for point in data]
    time = Fraction(float(t))
    with decimal.localcontext(prec=50):
        for row in x:
            state = [Fraction(float(s)) for s in row]
            squares = [sum((s - time * p) ** 2 for s, p in zip(state, point)) for point in points]
            scaled = [-q / (2 * (1 - time) ** 2) for q in squares]
            weights = [(decimal.Decimal(d.numerator) / d.denominator).exp() for d in (s - max(scaled) for s in scaled)]
            shares = [Fraction(float(w / sum(weights))) for w in weights]
            means = [sum(w * point[d] for w, point in zip(shares, points)) for d in range(len(state))]
            out.append([float((m - s) / (1 - time)) for m, s in zip(means, state)])
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("before_end", [1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(("points", "copies", "size"), [(7, 2, 2), (5, 3, 64), (3, 2, 3072), (4, 1, 64)])
def test_points_that_stand_twice_keep_their_weight_near_the_end(before_end, points, copies, size):
    """The logits there are so large that rounding would lose the log 2 between one point and two."""
    data = (draw((points, size)) * 128).round().div(128).repeat(copies, 1)  # short numbers: exact sums stay cheap
    t = 1 - before_end
    x = t * data[:2] + before_end * draw((2, size), 1)
    want = exact(data, x, t)
    for block in (1, 4, 4096):
        got = EmpiricalVelocity(data, block)(x, torch.full((2,), t, dtype=torch.float64))
        assert float((got - want).abs().max() / want.abs().max()) < 1e-15 / before_end + 1e-13


def test_a_block_without_weight_leaves_the_others_theirs():
    logits = [
        torch.tensor([[-torch.inf, -torch.inf]]),
        torch.tensor([[-1e300, 0.0]]),
        torch.tensor([[0.0, -torch.inf]]),
    ]
    blocks = [(part.double(), torch.full((2, 1), float(i)).double()) for i, part in enumerate(logits)]
    assert float(softmax_mean(blocks)) == 1.5


def test_it_does_not_follow_later_changes_of_its_data_nor_change_them():
    data = draw((10, 3))
    before = data.clone()
    field = EmpiricalVelocity(data)
    field(draw((4, 3), 1), torch.full((4,), 0.5).double())
    assert torch.equal(data, before)
