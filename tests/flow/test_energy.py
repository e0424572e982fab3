"""Kinetic path energy against fields whose energy is known in closed form, and against naive float64 loops."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
import textwrap

import numpy as np
import pytest
import torch
from fields import col, start
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.flow import KTS, SSC, Constant, Schedule, integrate

FIXED = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}  # solver: order
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
ALL = [*FIXED, "dopri5"]


def half_square(x):
    return 0.5 * x.double().flatten(1).square().sum(1)


# ---------------------------------------------------------------- constant velocity


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("grid", ["uniform", "cosine"])
@pytest.mark.parametrize("shape", [(4, 3), (1, 7), (2, 3, 5, 1)])
def test_constant_velocity_costs_half_its_square(solver, grid, shape):
    c = start(shape, 1)
    traj = integrate(lambda x, t, y=None: c.clone(), start(shape), Schedule(steps=7, solver=solver, grid=grid))
    expected = half_square(c)
    torch.testing.assert_close(traj.kpe.double(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.field_energy.double(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.displacement.double(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.x1, start(shape) + c, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(traj.excess.double(), torch.zeros_like(expected), rtol=0, atol=1e-11)


@pytest.mark.parametrize("solver", ALL)
def test_constant_velocity_has_constant_power(solver):
    c = start((4, 3), 1)
    traj = integrate(lambda x, t, y=None: c.clone(), start((4, 3)), Schedule(steps=6, solver=solver, grid="cosine"))
    assert traj.energy.shape == (len(traj.times) - 1, 4)
    torch.testing.assert_close(traj.power.double(), half_square(c).expand_as(traj.power), rtol=1e-10, atol=0)


def test_the_norm_sums_over_every_dimension_and_is_no_mean():
    x0 = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    traj = integrate(lambda x, t, y=None: torch.full_like(x, 2.0), x0, Schedule(steps=3))
    torch.testing.assert_close(traj.kpe.double(), torch.full((2,), 0.5 * 60 * 4.0, dtype=torch.float64))


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("t_end", [0.25, 0.959])
def test_t_end_ends_the_integral(solver, t_end):
    c = start((4, 3), 1)
    traj = integrate(lambda x, t, y=None: c.clone(), start((4, 3)), Schedule(steps=5, solver=solver, t_end=t_end))
    torch.testing.assert_close(traj.kpe.double(), t_end * half_square(c), rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.displacement.double(), t_end**2 * half_square(c), rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.x1, start((4, 3)) + t_end * c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ALL)
def test_a_constant_gain_squares_in_the_energy_and_not_in_the_field_energy(solver):
    c, g = start((4, 3), 1), 0.7
    traj = integrate(lambda x, t, y=None: c.clone(), start((4, 3)), Schedule(gain=Constant(g), steps=5, solver=solver))
    torch.testing.assert_close(traj.kpe.double(), g**2 * half_square(c), rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.field_energy.double(), half_square(c), rtol=1e-12, atol=0)
    torch.testing.assert_close(traj.displacement.double(), g**2 * half_square(c), rtol=1e-12, atol=0)


# ---------------------------------------------------------------- convergence order on analytic fields
#
# Each problem: velocity, schedule arguments, exact x(1) and exact energy, exact field energy.


def linear(a=-1.3):
    def exact(x0):
        return x0 * math.exp(a), a * (math.exp(2 * a) - 1) / 2 * half_square(x0), None

    return (lambda x, t, y=None: a * x), {}, exact


def rotation(w=2.0):
    def turn(x):
        return w * torch.stack([-x[:, 1], x[:, 0]], 1)

    def exact(x0):
        c, s = math.cos(w), math.sin(w)
        x1 = torch.stack([c * x0[:, 0] - s * x0[:, 1], s * x0[:, 0] + c * x0[:, 1]], 1)
        return x1, w**2 * half_square(x0), None

    return (lambda x, t, y=None: turn(x)), {}, exact


def rotation_stopped(w=2.0, t_end=0.6):
    velocity, _, _ = rotation(w)

    def exact(x0):
        c, s = math.cos(w * t_end), math.sin(w * t_end)
        x1 = torch.stack([c * x0[:, 0] - s * x0[:, 1], s * x0[:, 0] + c * x0[:, 1]], 1)
        return x1, t_end * w**2 * half_square(x0), None

    return velocity, {"t_end": t_end}, exact


def breathing():
    """v = f(t) c with f = exp(t): int f = e - 1, int f^2 = (e^2 - 1) / 2."""
    c = torch.tensor([[1.0, -2.0]], dtype=torch.float64)

    def exact(x0):
        energy = half_square(c) * (math.e**2 - 1) / 2
        return x0 + c * (math.e - 1), energy.expand(len(x0)), None

    return (lambda x, t, y=None: torch.exp(col(t, x)) * c.expand_as(x)), {}, exact


def growing():
    """x' = (t + t^2) x: x = x0 exp(t^2 / 2 + t^3 / 3); the energy by a fine Simpson rule."""
    ts = np.linspace(0, 1, 20001)
    f = (ts + ts**2) ** 2 * np.exp(ts**2 + 2 * ts**3 / 3)
    simpson = (f[0] + f[-1] + 4 * f[1:-1:2].sum() + 2 * f[2:-1:2].sum()) / (3 * 20000)

    def exact(x0):
        return x0 * math.exp(5 / 6), half_square(x0) * simpson, None

    return (lambda x, t, y=None: (col(t, x) + col(t, x) ** 2) * x), {}, exact


def shaped_linear(a=0.8, s=0.6):
    """x' = eta a x with eta = 1 + s (1 - t)^2: x = x0 exp(a I(t)), I = t + s (1 - (1 - t)^3) / 3."""
    n = 20000
    ts = np.linspace(0, 1, n + 1)
    eta = 1 + s * (1 - ts) ** 2
    grown = np.exp(2 * a * (ts + s * (1 - (1 - ts) ** 3) / 3))

    def simpson(f):
        return (f[0] + f[-1] + 4 * f[1:-1:2].sum() + 2 * f[2:-1:2].sum()) / (3 * n)

    def exact(x0):
        h = half_square(x0) * a**2
        return x0 * math.exp(a * (1 + s / 3)), h * simpson(eta**2 * grown), h * simpson(grown)

    return (lambda x, t, y=None: a * x), {"gain": SSC(s, 2.0)}, exact


PROBLEMS = {
    "linear": linear,
    "rotation": rotation,
    "rotation stopped": rotation_stopped,
    "breathing": breathing,
    "growing": growing,
    "shaped": shaped_linear,
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", FIXED)
def test_convergence_order_of_state_and_energy(problem, solver):
    velocity, settings_, exact = PROBLEMS[problem]()
    x0 = start((3, 2))
    x1, energy, field = exact(x0)
    errors = {"x1": [], "energy": [], "field": []}
    for steps in {1: (160, 320, 640), 2: (20, 40, 80), 4: (6, 12, 24)}[FIXED[solver]]:
        traj = integrate(velocity, x0, Schedule(steps=steps, solver=solver, **settings_))
        errors["x1"].append(float((traj.x1 - x1).norm()))
        errors["energy"].append(float((traj.kpe.double() - energy).norm()))
        errors["field"].append(float((traj.field_energy.double() - (energy if field is None else field)).norm()))
    for name, err in errors.items():
        orders = [math.log2(a / b) for a, b in itertools.pairwise(err)]
        assert orders[-1] == pytest.approx(FIXED[solver], abs=0.25), (name, err, orders)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_dopri5_is_close_to_exact(problem):
    velocity, settings_, exact = PROBLEMS[problem]()
    x0 = start((3, 2))
    x1, energy, field = exact(x0)
    traj = integrate(velocity, x0, Schedule(steps=10, solver="dopri5", **settings_))
    torch.testing.assert_close(traj.x1, x1, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(traj.kpe.double(), energy, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(traj.field_energy.double(), energy if field is None else field, rtol=1e-3, atol=1e-4)
    assert traj.energy.shape == (len(traj.times) - 1, 3)
    assert (traj.energy > 0).all()


def test_dopri5_energy_of_each_step_belongs_to_that_step():
    """v = exp(t) c: the energy between two edges is c^2/2 (e^{2b} - e^{2a}) / 2."""
    velocity, _, _ = breathing()
    traj = integrate(velocity, start((3, 2)), Schedule(steps=8, solver="dopri5"))
    edges = torch.exp(2 * traj.times.double())
    expected = 2.5 * torch.diff(edges) / 2
    torch.testing.assert_close(traj.energy.double(), expected[:, None].expand(-1, 3), rtol=2e-3, atol=1e-4)


# ---------------------------------------------------------------- naive loops

TABLEAUS = {
    "euler": ([0.0], [[]], [1.0]),
    "midpoint": ([0.0, 0.5], [[], [0.5]], [0.0, 1.0]),
    "heun": ([0.0, 1.0], [[], [1.0]], [0.5, 0.5]),
    "rk4": ([0, 0.5, 0.5, 1], [[], [0.5], [0, 0.5], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


def field_np(x, t):
    """A field without symmetry, [D] -> [D]."""
    return np.array([np.sin(3 * t + x[1]) + 0.5 * x[0] * t, x[0] * x[2] - 0.3, np.cos(x[0]) - x[1] * (1 - t)])


def field_torch(x, t, y=None):
    a, b, c = x.unbind(1)
    return torch.stack([torch.sin(3 * t + b) + 0.5 * a * t, a * c - 0.3, torch.cos(a) - b * (1 - t)], 1)


def naive(x, edges, eta, solver):
    """One sample in float64: final state, energy per step, field energy."""
    c, a, b = TABLEAUS[solver]
    energies, field = [], 0.0
    for t, t_next in itertools.pairwise(edges):
        h = t_next - t
        ks, es = [], []
        for s in range(len(c)):
            point = x + h * sum((a[s][j] * ks[j] for j in range(s)), np.zeros(3))
            v = field_np(point, t + c[s] * h)
            g = eta(t + c[s] * h)
            ks.append(g * v)
            es.append(0.5 * g * g * float(v @ v))
            field += h * b[s] * 0.5 * float(v @ v)
        x = x + h * sum(b[s] * ks[s] for s in range(len(c)))
        energies.append(h * sum(b[s] * es[s] for s in range(len(c))))
    return x, np.array(energies), field


def eta_kts(alpha, beta, tau):
    def eta(t):
        if t < tau:
            return 1 + alpha * (1 - t / tau)
        return 1 - beta * (math.exp(3 * (t - tau) / (1 - tau)) - 1)

    return eta


@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize("gain", [None, KTS(0.2, 0.02)])
def test_the_loop_in_the_docstring_is_what_integrate_does(solver, gain):
    text = inspect.getdoc(sys.modules["fm_lightning.flow.integrate"])
    code = text[text.index("    def sample(") : text.index("What the code below adds")]
    names = {"torch": torch}
    exec(textwrap.dedent(code), names)
    schedule = Schedule(gain, steps=7, solver=solver, grid="cosine", x0_scale=0.9)
    x1, energy = names["sample"](field_torch, start((4, 3)), schedule)
    traj = integrate(field_torch, start((4, 3)), schedule)
    torch.testing.assert_close(traj.x1, x1, rtol=1e-6, atol=1e-6)  # the loop tells the network float32 times
    torch.testing.assert_close(traj.energy, energy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize(("alpha", "beta", "tau"), [(0, 0, 0.6), (0.1, 0.02, 0.6), (0.0, 0.04, 0.33), (0.5, 0.0, 0.8)])
def test_state_and_energy_per_step_equal_a_naive_loop(solver, grid, alpha, beta, tau):
    n = 13
    i = np.arange(n + 1)
    edges = i / n if grid == "uniform" else (1 - np.cos(np.pi * i / n)) / 2
    gain = KTS(alpha, beta, tau) if alpha or beta else None
    x0 = start((4, 3))
    traj = integrate(field_torch, x0, Schedule(gain=gain, steps=n, solver=solver, grid=grid))
    for row in range(4):
        x1, energy, field = naive(x0[row].numpy(), edges, eta_kts(alpha, beta, tau), solver)
        np.testing.assert_allclose(traj.x1[row].numpy(), x1, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(traj.energy[:, row].double().numpy(), energy, rtol=1e-9, atol=1e-12)
        assert float(traj.field_energy[row]) == pytest.approx(field, rel=1e-9)
        assert float(traj.displacement[row]) == pytest.approx(0.5 * ((x1 - x0[row].numpy()) ** 2).sum(), rel=1e-9)


def test_euler_energy_is_the_sum_in_the_paper():
    """sum_i dt_i * 1/2 ||eta_i v_i||^2, written out; float32 state."""
    weights = torch.from_numpy(np.random.default_rng(3).standard_normal((6, 6))).float() / 3
    x0 = start((5, 6), 2, torch.float32)
    traj = integrate(lambda x, t, y=None: torch.tanh(x @ weights) + t[:, None], x0, Schedule(KTS(0.2, 0.03), steps=20))
    x, total, field = x0.double(), 0.0, 0.0
    for i in range(20):
        t, dt = i / 20, 1 / 20
        eta = eta_kts(0.2, 0.03, 0.6)(t)
        v = torch.tanh(x @ weights.double()) + t
        step = dt * 0.5 * (eta * v).square().sum(1)
        torch.testing.assert_close(traj.energy[i].double(), step, rtol=2e-5, atol=0)
        total, field = total + step, field + dt * 0.5 * v.square().sum(1)
        x = x + dt * eta * v
    assert traj.energy.dtype == torch.float32
    assert traj.x1.dtype == torch.float32
    torch.testing.assert_close(traj.kpe.double(), total, rtol=1e-5, atol=0)
    torch.testing.assert_close(traj.field_energy.double(), field, rtol=1e-5, atol=0)
    torch.testing.assert_close(traj.x1.double(), x, rtol=1e-4, atol=1e-5)


def test_a_thousand_small_steps_do_not_lose_energy_in_float32():
    x0 = torch.zeros(2, 1000)
    traj = integrate(lambda x, t, y=None: torch.full_like(x, 0.3), x0, Schedule(steps=1000))
    assert traj.kpe.double().tolist() == pytest.approx([45.0, 45.0], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_energies_are_float32_when_the_network_is_coarser(dtype):
    """The network answers in 16 bits; 4096 dimensions at 8 sum to 131072, above float16's largest number."""
    x0 = torch.zeros(2, 4096)
    traj = integrate(lambda x, t, y=None: torch.full_like(x, 8.0).to(dtype), x0, Schedule(steps=10))
    assert traj.energy.dtype == torch.float32
    assert traj.kpe.tolist() == pytest.approx([131072.0] * 2, rel=1e-5)
    assert traj.displacement.tolist() == pytest.approx([131072.0] * 2, rel=1e-4)


@pytest.mark.parametrize("solver", ALL)
def test_energy_and_diagnostics_have_the_documented_types(solver):
    traj = integrate(field_torch, start((4, 3), dtype=torch.float32), Schedule(steps=4, solver=solver))
    assert traj.energy.dtype == traj.field_energy.dtype == traj.displacement.dtype == torch.float32
    assert traj.times.dtype == traj.gain.dtype == torch.float64
    assert traj.times.shape == (traj.energy.shape[0] + 1,)
    assert traj.gain.shape == (traj.energy.shape[0],)
    assert traj.field_energy.shape == traj.displacement.shape == (4,)
    assert len(traj) == 4


# ---------------------------------------------------------------- identities


@settings(max_examples=40, deadline=None)
@given(
    solver=st.sampled_from(list(FIXED)),
    steps=st.integers(1, 15),
    alpha=st.floats(0, 1),
    beta=st.floats(0, 0.05),
    tau=st.floats(0.05, 0.95),
    split=st.floats(-0.1, 1.1),
    grid=st.sampled_from(["uniform", "cosine"]),
)
def test_early_and_late_make_the_whole_and_excess_is_not_negative(solver, steps, alpha, beta, tau, split, grid):
    x0 = start((3, 3))
    traj = integrate(field_torch, x0, Schedule(KTS(alpha, beta, tau), steps=steps, solver=solver, grid=grid))
    torch.testing.assert_close(traj.early(split) + traj.late(split), traj.kpe, rtol=1e-12, atol=0)
    early = sum((traj.energy[i] for i in range(steps) if float(traj.times[i]) < split), torch.zeros(3).double())
    torch.testing.assert_close(traj.early(split), early, rtol=1e-12, atol=1e-15)
    # Jensen, exactly in the discrete sum: all weights of these four tableaus are non-negative and sum to 1.
    assert (traj.excess >= -1e-12 * traj.kpe).all()
    torch.testing.assert_close(traj.displacement.double(), half_square(traj.x1 - x0), rtol=1e-12, atol=1e-14)


def test_rotation_has_excess_and_a_straight_line_has_none():
    velocity, _, _ = rotation(math.pi)
    x0 = start((3, 2))
    turned = integrate(velocity, x0, Schedule(steps=200, solver="rk4"))
    # half a turn: arc energy (pi r)^2 / 2 against the diameter's (2 r)^2 / 2
    torch.testing.assert_close(turned.excess, (math.pi**2 - 4) * half_square(x0), rtol=1e-6, atol=0)


def test_energies_stay_float32_where_networks_run_in_bfloat16():
    x0 = torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = integrate(lambda x, t, y: -x, x0, Schedule(steps=7))
    expected = integrate(lambda x, t, y: -x, x0, Schedule(steps=7))
    for name in ("energy", "field_energy", "displacement", "x1"):
        assert getattr(found, name).dtype == torch.float32, name
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name)
