"""Gains against scalar formulas, the side on which the split falls, and the limits of a positive gain."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, Brake, Constant, Schedule, integrate

LAUNCH = ["linear", "constant", "exponential"]
LANDING = ["exponential", "linear", "constant"]


def eta_scalar(t, alpha=0.01, beta=0.01, tau=0.6, launch="linear", landing="exponential", k=3.0):
    if t < tau:
        u = 1 - t / tau
        form = {
            "linear": u,
            "constant": 1.0,
            "exponential": (math.exp(k * u) - 1) / (math.exp(k) - 1),
        }[launch]
        return 1 + alpha * form
    u = (t - tau) / (1 - tau)
    form = {"exponential": math.exp(k * u) - 1, "linear": u, "constant": 1.0}[landing]
    return 1 - beta * form


def at(gain, *times):
    return gain(torch.tensor(times, dtype=torch.float64))


def unit_velocity(x, t, y=None):
    return torch.ones_like(x)


def run(gain, **kwargs):
    return integrate(unit_velocity, torch.zeros(2, 3, dtype=torch.float64), Schedule(gain=gain, **kwargs))


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("launch", LAUNCH)
@pytest.mark.parametrize("landing", LANDING)
@pytest.mark.parametrize("rate", [3.0, 0.5, 7.0])
@pytest.mark.parametrize("tau", [0.6, 0.05, 0.95, 1 / 3])
def test_kts_forms(launch, landing, rate, tau):
    times = sorted({*np.linspace(0, 1, 41), tau, np.nextafter(tau, 0), np.nextafter(tau, 1)})
    got = at(KTS(0.3, 0.02, tau, launch, landing, rate), *times)
    want = [eta_scalar(t, 0.3, 0.02, tau, launch, landing, rate) for t in times]
    assert got.shape == (len(times),)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=0)


def test_kts_defaults():
    times = np.linspace(0, 1, 21)
    np.testing.assert_allclose(at(KTS(), *times).numpy(), [eta_scalar(t) for t in times], rtol=1e-13)
    assert at(KTS(), 0.0, 0.6, 1.0).tolist() == pytest.approx([1.01, 1.0, 1 - 0.01 * (math.e**3 - 1)], rel=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    t=st.floats(0, 1),
    alpha=st.floats(-0.9, 3),
    beta=st.floats(-1, 1),
    tau=st.floats(0.01, 0.99),
    launch=st.sampled_from(LAUNCH),
    landing=st.sampled_from(LANDING),
    rate=st.floats(0.01, 6),
)
def test_kts_at_random(t, alpha, beta, tau, launch, landing, rate):
    got = float(at(KTS(alpha, beta, tau, launch, landing, rate), t))
    assert got == pytest.approx(eta_scalar(t, alpha, beta, tau, launch, landing, rate), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_gains_keep_the_shape_of_time(shape):
    t = torch.full(shape, 0.25, dtype=torch.float64)
    for gain in (KTS(0.1, 0.01), SSC(0.1, 2.0), Constant(0.9), KTS(0.1, 0.01) * SSC(0.1, 2.0)):
        assert gain(t).shape == shape
        assert gain(t).dtype == torch.float64


def test_a_rate_near_zero_is_the_linear_launch():
    """(exp(k u) - 1) / (exp(k) - 1) -> u; a naive quotient loses its digits."""
    times = np.linspace(0, 0.59, 12)
    got = at(KTS(0.5, 0.0, launch="exponential", rate=1e-9), *times).numpy()
    np.testing.assert_allclose(got, [1 + 0.5 * (1 - t / 0.6) for t in times], rtol=1e-6)


@pytest.mark.parametrize(("scale", "power"), [(0.05, 1.0), (0.3, 0.0), (1.0, 3.5), (-0.2, 2.0)])
def test_ssc(scale, power):
    times = np.linspace(0, 1, 17)
    want = [1 + scale * (1 - t) ** power for t in times]
    np.testing.assert_allclose(at(SSC(scale, power), *times).numpy(), want, rtol=1e-13)


def test_constant():
    assert at(Constant(0.37), 0.0, 0.5, 1.0).tolist() == [0.37] * 3
    assert at(Constant(), 0.0, 0.5, 1.0).tolist() == [1.0] * 3


def test_composition_multiplies():
    times = np.linspace(0, 1, 11)
    got = at(KTS(0.2, 0.02) * SSC(0.1, 1.0) * Constant(0.9), *times).numpy()
    want = [eta_scalar(t, 0.2, 0.02) * (1 + 0.1 * (1 - t)) * 0.9 for t in times]
    np.testing.assert_allclose(got, want, rtol=1e-13)
    traj = run(KTS(0.2, 0.02) * Constant(0.9), steps=10)
    np.testing.assert_allclose(traj.gain.numpy(), [0.9 * eta_scalar(i / 10, 0.2, 0.02) for i in range(10)], rtol=1e-13)


# ---------------------------------------------------------------- the split falls on the right side


@pytest.mark.parametrize("steps", [10, 20, 50, 100])
@pytest.mark.parametrize("tau", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9])
def test_the_step_at_tau_belongs_to_the_landing(tau, steps):
    traj = run(KTS(0.5, 0.25, tau, launch="constant", landing="constant"), steps=steps)
    first = round(tau * steps)
    assert traj.gain.tolist() == [1.5] * first + [0.75] * (steps - first)
    # early and late follow the same edge
    assert float(traj.early(tau)[0]) == pytest.approx(1.5 * tau * 1.5**2, rel=1e-10)
    assert float(traj.late(tau)[0]) == pytest.approx(1.5 * (1 - tau) * 0.75**2, rel=1e-10)


@pytest.mark.parametrize("percent", range(1, 100))
def test_every_hundredth_is_an_edge_of_a_hundred_steps(percent):
    tau = percent / 100
    traj = run(KTS(0.5, 0.25, tau, launch="constant", landing="constant"), steps=100)
    assert int((traj.gain > 1).sum()) == percent


def test_the_gain_of_the_trajectory_is_the_gain_at_each_left_edge():
    for grid in ("uniform", "cosine"):
        traj = run(KTS(0.5, 0.02), steps=9, grid=grid)
        np.testing.assert_allclose(
            traj.gain.numpy(), [eta_scalar(float(t), 0.5, 0.02) for t in traj.times[:-1]], rtol=1e-13
        )
    assert run(None, steps=4).gain.tolist() == [1.0] * 4


# ---------------------------------------------------------------- the total


def total(gain, steps):
    """int eta dt by the midpoint rule."""
    return float(gain((torch.arange(steps, dtype=torch.float64) + 0.5) / steps).mean())


def test_the_total_gain_is_short_of_one():
    continuous = 1 + 0.01 * 0.3 - 0.01 * 0.4 * ((math.e**3 - 1) / 3 - 1)
    assert continuous == pytest.approx(0.982, abs=6e-4)
    assert total(KTS(0.01, 0.01), 100_000) == pytest.approx(continuous, abs=1e-5)
    assert float(run(KTS(0.01, 0.01)).x1[0, 0]) == pytest.approx(0.982, abs=1e-3)


def test_matching_the_displacement_needs_seven_times_the_launch():
    beta = 0.005
    assert total(KTS(7.149 * beta, beta), 100_000) == pytest.approx(1.0, abs=1e-5)
    assert total(KTS(beta, beta), 100_000) < 0.995


# ---------------------------------------------------------------- positivity


def last_time(solver, steps, t_end=1.0):
    edges = np.arange(steps + 1) / steps * t_end
    return {
        "euler": edges[-2],
        "midpoint": (edges[-2] + edges[-1]) / 2,
        "heun": edges[-1],
        "rk4": edges[-1],
        "dopri5": edges[-1],
    }[solver]


def largest_beta(t, tau, landing, k=3.0):
    u = (t - tau) / (1 - tau)
    return 1 / {"exponential": math.exp(k * u) - 1, "linear": u, "constant": 1.0}[landing]


def test_the_limits_in_the_paper():
    assert largest_beta(1.0, 0.6, "exponential") == pytest.approx(0.0524, abs=5e-5)
    assert largest_beta(0.99, 0.6, "exponential") == pytest.approx(0.0567, abs=5e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "dopri5"])
@pytest.mark.parametrize("landing", LANDING)
@pytest.mark.parametrize("steps", [100, 10])
@pytest.mark.parametrize("tau", [0.6, 0.25])
def test_a_gain_that_reaches_zero_is_refused_and_the_largest_beta_is_named(solver, landing, steps, tau):
    limit = largest_beta(last_time(solver, steps), tau, landing)
    kwargs = {"steps": steps, "solver": solver}
    for too_much in (limit * 1.0001, limit * 1.5):
        with pytest.raises(UserError) as caught:
            run(KTS(0.01, too_much, tau, landing=landing), **kwargs)
        message = str(caught.value)
        assert "\n" not in message
        numbers = [float(s) for s in re.findall(r"\d+\.\d+(?:[eE][-+]?\d+)?|\d+", message)]
        # The number named must really work, and must be all but the limit.
        named = [b for b in numbers if 0.98 * limit <= b < limit]
        assert named, (message, limit)
        run(KTS(0.01, max(named), tau, landing=landing), **kwargs)
    run(KTS(0.01, limit * 0.9999, tau, landing=landing), **kwargs)


def test_the_refusal_comes_before_any_sampling():
    calls = []

    def velocity(x, t, y=None):
        calls.append(t)
        return x

    with pytest.raises(UserError):
        integrate(velocity, torch.zeros(2, 3), Schedule(KTS(0.0, 0.06)))
    assert calls == []


def test_a_gain_of_exactly_zero_is_refused():
    with pytest.raises(UserError):
        run(Constant(0.0))
    with pytest.raises(UserError):
        run(Constant(-1.0))
    with pytest.raises(UserError):
        run(KTS(0.0, 1.0, landing="constant"))
    with pytest.raises(UserError):
        run(KTS(-1.0, 0.0))  # 1 - 1 at t = 0
    with pytest.raises(UserError):
        run(SSC(-1.0, 1.0))


def test_a_gain_that_is_not_a_number_is_refused():
    with pytest.raises(UserError):
        run(Constant(float("nan")))
    with pytest.raises(UserError):
        run(Constant(float("inf")))


def test_an_early_end_allows_more():
    limit = largest_beta(last_time("heun", 20, t_end=0.9), 0.6, "exponential")
    assert limit > 0.1
    run(KTS(0.0, limit * 0.999), steps=20, solver="heun", t_end=0.9)
    with pytest.raises(UserError):
        run(KTS(0.0, limit * 1.001), steps=20, solver="heun", t_end=0.9)


def test_composed_gains_are_checked_as_a_whole():
    run(KTS(0.0, 0.05) * Constant(0.5))
    with pytest.raises(UserError):
        run(KTS(0.0, 0.06) * Constant(0.5))
    run(KTS(0.0, 0.06) * KTS(0.0, 0.06), allow_reverse=True)


def test_allow_reverse_insists():
    traj = run(KTS(0.0, 0.1), steps=100, allow_reverse=True)
    want = [eta_scalar(i / 100, 0.0, 0.1) for i in range(100)]
    assert min(want) < 0
    np.testing.assert_allclose(traj.gain.numpy(), want, rtol=1e-12)
    assert float(traj.x1[0, 0]) == pytest.approx(sum(want) / 100, rel=1e-10)
    assert float(traj.kpe[0]) == pytest.approx(1.5 * sum(g * g for g in want) / 100, rel=1e-6)


# ---------------------------------------------------------------- bad settings


@pytest.mark.parametrize("tau", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_tau_outside_is_refused(tau):
    with pytest.raises(UserError, match="tau_split") as caught:
        run(KTS(tau_split=tau))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kwargs", [{"launch": "quadratic"}, {"landing": "cubic"}])
def test_unknown_forms_are_refused(kwargs):
    with pytest.raises(UserError) as caught:
        run(KTS(**kwargs))
    message = str(caught.value)
    assert "\n" not in message
    for form in LAUNCH:
        assert form in message


@pytest.mark.parametrize(
    ("kwargs", "steps"),
    [
        ({"alpha": math.nan}, 1),
        ({"alpha": math.nan}, 100),
        ({"beta": math.nan}, 100),
        ({"rate": math.inf}, 100),
        ({"rate": 1000.0}, 100),
    ],
)
def test_gains_out_of_all_range_are_refused_in_one_line(kwargs, steps):
    with pytest.raises(UserError) as caught:
        run(KTS(**kwargs), steps=steps, solver="midpoint")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(math.inf), "Constant: value=inf must be a finite number"),
        (lambda: SSC(math.nan, 1), "SSC: scale=nan must be a finite number"),
        (lambda: SSC(1, -0.5), "SSC: power=-0.5 must be a finite number of at least 0"),
        (lambda: SSC(1, math.inf), "SSC: power=inf must"),
        (lambda: Brake(math.nan), "Brake: value=nan must"),
        (lambda: Brake(0.5, 1.0), "Brake: after=1 must be at least 0 and below 1"),
        (lambda: Brake(0.5, -0.1), "Brake: after=-0.1 must"),
    ],
)
def test_a_gain_that_cannot_be_meant_is_refused_where_it_is_made(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(UserError, match="rate"):
        run(KTS(rate=rate))


def test_gains_are_values():
    assert KTS(0.01, 0.02) == KTS(0.01, 0.02)
    assert KTS(0.01, 0.02) != KTS(0.01, 0.03)
    assert hash(KTS(0.01, 0.02)) == hash(KTS(0.01, 0.02))
