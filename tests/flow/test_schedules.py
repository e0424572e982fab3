"""Grids, told times, scaled starts and noisy ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fields import Contracting, start
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Constant, Schedule, integrate
from fm_lightning.noise import noise

SOLVERS = ["euler", "midpoint", "heun", "rk4", "dopri5"]


def run(x0=None, labels=None, seeds=None, **kwargs):
    net = Contracting()
    return integrate(net, start() if x0 is None else x0, Schedule(**kwargs), labels=labels, seeds=seeds), net


def eta(t, alpha, beta, tau=0.6):
    return 1 + alpha * (1 - t / tau) if t < tau else 1 - beta * (math.exp(3 * (t - tau) / (1 - tau)) - 1)


def told_euler(x, edges, gains, told):
    """Euler in float64 with lengths gain * dt while the field is told `told`."""
    x = x.clone()
    for a, b, g, t in zip(edges, edges[1:], gains, told):
        x = x + g * (b - a) * (math.cos(2 * t) - 0.7 * x)
    return x


# ---------------------------------------------------------------- grids


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 49, 100, 1000])
def test_the_uniform_grid_is_i_over_n_to_the_last_bit(steps):
    traj, _ = run(torch.zeros(1, 1), steps=steps)
    assert traj.times.tolist() == [i / steps for i in range(steps + 1)]


@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_the_cosine_grid(steps):
    traj, _ = run(torch.zeros(1, 1), steps=steps, grid="cosine")
    want = [(1 - math.cos(math.pi * i / steps)) / 2 for i in range(steps + 1)]
    assert traj.times.tolist() == pytest.approx(want, abs=1e-15)
    assert traj.times[0] == 0
    assert traj.times[-1] == 1


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
@pytest.mark.parametrize("t_end", [0.3, 0.959, 0.1])
@pytest.mark.parametrize("solver", ["euler", "rk4"])
def test_t_end_scales_the_grid(grid, t_end, solver):
    full, _ = run(steps=11, grid=grid, solver=solver)
    part, net = run(steps=11, grid=grid, t_end=t_end, solver=solver)
    assert part.times.tolist() == pytest.approx((full.times * t_end).tolist(), rel=1e-14)
    assert float(part.times[-1]) == t_end
    assert max(net.told) <= t_end


EDGES = [0.0, 0.05, 0.3, 0.31, 0.77, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_grid_of_ones_own(solver, dtype):
    grid = torch.tensor(EDGES, dtype=dtype)
    traj, net = run(steps=5, grid=grid, solver=solver)
    assert traj.times.dtype == torch.float64
    assert traj.times.tolist() == pytest.approx(grid.double().tolist(), abs=1e-15)
    if solver == "euler":
        assert net.told == pytest.approx(EDGES[:-1], abs=1e-7)
        x1 = told_euler(start(), EDGES, [1] * 5, EDGES)
        torch.testing.assert_close(traj.x1, x1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_a_grid_of_ones_own_can_be_the_uniform_one(solver):
    named, _ = run(steps=8, solver=solver, gain=KTS(0.3, 0.02))
    given_, _ = run(steps=8, solver=solver, gain=KTS(0.3, 0.02), grid=torch.arange(9, dtype=torch.float64) / 8)
    assert torch.equal(named.x1, given_.x1)
    assert torch.equal(named.energy, given_.energy)


@pytest.mark.parametrize(
    "grid",
    [
        [0.0, 0.5, 0.4, 1.0],  # falls
        [0.0, 0.5, 0.5, 1.0],  # stands still
        [1.0, 0.5, 0.0],  # backwards
        [0.0, float("nan"), 1.0],
        [0.0, float("inf")],
        [0.0],  # no step
        [],
        [[0.0, 0.5, 1.0]],  # two dimensions
    ],
)
def test_bad_grids_are_refused(grid):
    with pytest.raises(UserError) as caught:
        run(steps=max(1, len(grid) - 1), grid=torch.tensor(grid))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- settings that are refused


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_fewer_than_one_step_is_refused(steps, solver):
    with pytest.raises(UserError, match="steps"):
        run(steps=steps, solver=solver)


@pytest.mark.parametrize(
    ("kwargs", "known"),
    [
        ({"solver": "eulr"}, "euler"),
        ({"grid": "linear"}, "uniform"),
        ({"told_time": "clock"}, "displacement"),
    ],
)
def test_unknown_names_are_refused_and_the_known_ones_named(kwargs, known):
    with pytest.raises(UserError) as caught:
        run(**kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert known in message
    assert next(iter(kwargs.values())) in message


@pytest.mark.parametrize("t_end", [0.0, -0.5, float("nan")])
def test_an_end_before_the_start_is_refused(t_end):
    with pytest.raises(UserError, match="t_end"):
        run(t_end=t_end)


@pytest.mark.parametrize("given_", ["much", [0.1, None], [0.1, -0.1], float("nan")])
def test_end_noise_that_is_no_deviation_is_refused(given_):
    with pytest.raises(UserError, match=r"end_noise=.* must be a finite number of at least 0"):
        Schedule(end_noise=given_)


def test_negative_end_noise_is_refused():
    with pytest.raises(UserError, match="end_noise"):
        run(end_noise=-0.1, seeds=torch.arange(4))


def test_schedules_are_values():
    assert Schedule(KTS(), steps=5) == Schedule(KTS(), steps=5)
    assert Schedule(KTS(), steps=5) != Schedule(KTS(), steps=6)
    with pytest.raises(AttributeError):
        Schedule().steps = 3


# ---------------------------------------------------------------- told time


def test_told_the_grid():
    _, net = run(gain=KTS(0.5, 0.02), steps=20)
    assert net.told == pytest.approx([i / 20 for i in range(20)], abs=1e-12)


def test_told_the_displacement_is_the_sum_of_gain_times_length():
    traj, net = run(gain=KTS(0.5, 0.02), steps=20, told_time="displacement")
    gains = [eta(i / 20, 0.5, 0.02) for i in range(20)]
    want = [sum(gains[:i]) / 20 for i in range(20)]
    assert net.told == pytest.approx(want, rel=1e-10, abs=1e-12)
    edges = [i / 20 for i in range(21)]
    torch.testing.assert_close(traj.x1, told_euler(start(), edges, gains, want), rtol=1e-9, atol=1e-9)
    # the gain itself is still read at the clock
    assert traj.gain.tolist() == pytest.approx(gains, rel=1e-12)
    assert traj.times.tolist() == edges


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_told_the_displacement_with_a_constant_gain_is_a_slower_clock(solver):
    """dx/dt = c v(x, c t) from 0 to 1 is dx/ds = v(x, s) from 0 to c."""
    slow, net = run(gain=Constant(0.8), steps=6, solver=solver, told_time="displacement")
    short, short_net = run(steps=6, solver=solver, t_end=0.8)
    assert net.told == pytest.approx(short_net.told, abs=1e-12)
    torch.testing.assert_close(slow.x1, short.x1, rtol=1e-11, atol=1e-11)
    # the same path in 1 / 0.8 of the time: energy times 0.8
    torch.testing.assert_close(slow.kpe, 0.8 * short.kpe, rtol=1e-10, atol=0)


@pytest.mark.parametrize("steps", [100, 7, 250])
@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
def test_told_floor999(steps, solver):
    traj, net = run(steps=steps, solver=solver, told_time="floor999", gain=KTS(0.2, 0.02))
    c = {"euler": [0], "heun": [0, 1], "rk4": [0, 0.5, 0.5, 1]}[solver]
    # integers: floor(999 (i + c) / N) = 999 (2 i + 2 c) // (2 N)
    want = [(999 * (2 * i + round(2 * s))) // (2 * steps) / 999 for i in range(steps) for s in c]
    assert net.told == pytest.approx(want, abs=1e-9)
    gains = [eta(i / steps, 0.2, 0.02) for i in range(steps)]
    assert traj.gain.tolist() == pytest.approx(gains, rel=1e-12)
    if solver == "euler":
        edges = [i / steps for i in range(steps + 1)]
        torch.testing.assert_close(traj.x1, told_euler(start(), edges, gains, want), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [27, 37, 111, 333, 999])
def test_told_floor999_where_the_product_is_a_whole_number(steps):
    """999 i / N is the integer i * (999 / N); rounding must not lose one of them."""
    _, net = run(torch.zeros(1, 1), steps=steps, told_time="floor999")
    assert [round(999 * t) for t in net.told] == [999 // steps * i for i in range(steps)]


@pytest.mark.parametrize("told", ["grid", "displacement", "floor999"])
def test_told_time_reaches_a_float32_network_as_float(told):
    _, net = run(start(dtype=torch.float32), steps=5, told_time=told)
    for t in net.t:
        assert t.shape == (5,)
        assert t.dtype == torch.float32


# ---------------------------------------------------------------- KTS is a mis-told clock


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 40),
    alpha=st.floats(0, 1),
    beta=st.floats(0, 0.052),
    tau=st.sampled_from([0.2, 0.6, 0.75]),
)
def test_kts_is_euler_steps_of_length_gain_times_dt_at_the_clock(steps, alpha, beta, tau):
    traj, net = run(gain=KTS(alpha, beta, tau), steps=steps)
    edges = [i / steps for i in range(steps + 1)]
    gains = [eta(t, alpha, beta, tau) for t in edges[:-1]]
    torch.testing.assert_close(traj.x1, told_euler(start(), edges, gains, edges), rtol=1e-9, atol=1e-9)
    assert net.told == pytest.approx(edges[:-1], abs=1e-12)


def test_kts_is_not_the_same_steps_with_a_true_clock():
    shaped, _ = run(gain=KTS(0.5, 0.02), steps=20)
    true, _ = run(gain=KTS(0.5, 0.02), steps=20, told_time="displacement")
    assert float((shaped.x1 - true.x1).abs().max()) > 1e-3


# ---------------------------------------------------------------- scaled start, noisy end


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [0.5, 1.1])
def test_x0_scale_starts_elsewhere(solver, scale):
    scaled, _ = run(steps=6, solver=solver, x0_scale=scale)
    by_hand, _ = run(start() * scale, steps=6, solver=solver)
    torch.testing.assert_close(scaled.x1, by_hand.x1, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scaled.energy, by_hand.energy, rtol=1e-12, atol=0)
    # the displacement belongs to the path that was travelled, so that the excess stays one
    torch.testing.assert_close(scaled.displacement, by_hand.displacement, rtol=1e-12, atol=0)


SEEDS = torch.arange(500) * 7 - 100


@pytest.mark.parametrize("solver", SOLVERS)
def test_end_noise_is_added_to_the_sample_and_leaves_the_energies(solver):
    x0 = start((500, 40), dtype=torch.float32)
    plain, _ = run(x0, seeds=SEEDS, steps=3, solver=solver)
    noisy, _ = run(x0, seeds=SEEDS, steps=3, solver=solver, end_noise=0.25)
    z = (noisy.x1 - plain.x1) / 0.25
    assert abs(float(z.mean())) < 5 / math.sqrt(20_000)
    assert float(z.std()) == pytest.approx(1.0, abs=5 / math.sqrt(40_000))
    assert float((z.abs() > 1.96).float().mean()) == pytest.approx(0.05, abs=0.01)
    assert torch.equal(noisy.energy, plain.energy)
    assert torch.equal(noisy.field_energy, plain.field_energy)
    assert torch.equal(noisy.displacement, plain.displacement)
    assert noisy.nfe == plain.nfe
    # rows are unlike each other, and unlike the noise that trajectories start from
    corr = np.corrcoef(np.concatenate([z[:20].numpy(), z[20:40].numpy()]))
    assert np.abs(corr - np.eye(40)).max() < 0.8
    for base_seed in range(3):
        initial = noise(SEEDS, (40,), base_seed)
        assert abs(float((initial * z).mean())) < 5 / math.sqrt(20_000)


def test_end_noise_belongs_to_the_seed():
    x0 = start((500, 40), dtype=torch.float32)
    whole, _ = run(x0, seeds=SEEDS, steps=2, end_noise=0.1)
    order = torch.from_numpy(np.random.default_rng(1).permutation(500))
    mixed, _ = run(x0[order], seeds=SEEDS[order], steps=2, end_noise=0.1)
    torch.testing.assert_close(mixed.x1, whole.x1[order], rtol=0, atol=1e-6)
    part, _ = run(x0[123:124], seeds=SEEDS[123:124], steps=2, end_noise=0.1)
    torch.testing.assert_close(part.x1, whole.x1[123:124], rtol=0, atol=1e-6)
    other, _ = run(x0, seeds=SEEDS + 10_000, steps=2, end_noise=0.1)
    assert float((other.x1 - whole.x1).std()) == pytest.approx(0.1 * math.sqrt(2), rel=0.05)


def test_end_noise_scales():
    x0 = start((10, 4), dtype=torch.float64)
    plain, _ = run(x0, seeds=SEEDS[:10], steps=2)
    small, _ = run(x0, seeds=SEEDS[:10], steps=2, end_noise=0.1)
    large, _ = run(x0, seeds=SEEDS[:10], steps=2, end_noise=0.3)
    torch.testing.assert_close(3 * (small.x1 - plain.x1), large.x1 - plain.x1, rtol=1e-6, atol=1e-7)


def test_end_noise_without_seeds_counts_the_rows():
    x0 = start((10, 4))
    silent, _ = run(x0, steps=2, end_noise=0.1)
    counted, _ = run(x0, seeds=torch.arange(10), steps=2, end_noise=0.1)
    assert torch.equal(silent.x1, counted.x1)
    assert silent.seeds is None
