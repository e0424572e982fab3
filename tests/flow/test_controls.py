"""The matched controls that belong to a schedule: each keeps one of its side effects and nothing else of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import Contracting, start
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.flow import KTS, SSC, Constant, Schedule, integrate, matched_controls

SOLVERS = ["euler", "midpoint", "heun", "rk4", "dopri5"]

SHAPED = {
    "balanced": Schedule(KTS(0.01, 0.01)),
    "strong": Schedule(KTS(0.2, 0.04), steps=40),
    "launch": Schedule(KTS(0.3, 0.0), steps=30),
    "cosine": Schedule(KTS(0.05, 0.03), steps=25, grid="cosine"),
    "ssc": Schedule(SSC(0.1, 1.0), steps=20),
    "composed": Schedule(KTS(0.1, 0.02) * Constant(0.9), steps=20),
}


def lengths(schedule):
    """eta_i and dt_i, read from a run of it."""
    traj = integrate(lambda x, t, y=None: torch.ones_like(x), torch.zeros(1, 1).double(), schedule)
    return traj.gain.numpy(), np.diff(traj.times.numpy())


@pytest.mark.parametrize("name", SHAPED)
def test_the_true_clock_takes_the_same_steps_and_reaches_the_end(name):
    schedule = SHAPED[name]
    control = matched_controls(schedule)["true_clock"]
    gains, dt = lengths(schedule)
    control_gains, control_dt = lengths(control)
    assert (control_gains == 1).all()
    np.testing.assert_allclose(control_dt, gains * dt / (gains * dt).sum(), rtol=1e-9)
    net = Contracting()
    traj = integrate(net, start(), control)
    assert float(traj.times[-1]) == 1.0
    assert net.told == pytest.approx(traj.times[:-1].tolist(), abs=1e-12)
    assert traj.nfe == schedule.steps


@pytest.mark.parametrize("name", SHAPED)
def test_the_early_stop_is_plain_and_stops_at_the_total(name):
    schedule = SHAPED[name]
    gains, dt = lengths(schedule)
    total = float((gains * dt).sum())
    controls = matched_controls(schedule)
    if total > 1:
        assert "early_stop" not in controls
        return
    traj = integrate(net := Contracting(), start(), controls["early_stop"])
    assert (traj.gain == 1).all()
    edges = np.concatenate([[0], dt.cumsum()])  # the schedule's own kind of grid: only the end may differ from base
    np.testing.assert_allclose(traj.times.numpy(), total * edges, rtol=1e-9, atol=1e-12)
    assert net.told == pytest.approx(traj.times[:-1].tolist(), abs=1e-12)
    assert traj.nfe == schedule.steps


@pytest.mark.parametrize("name", SHAPED)
def test_the_constant_gain_has_the_same_total_at_every_step(name):
    schedule = SHAPED[name]
    gains, dt = lengths(schedule)
    traj = integrate(net := Contracting(), start(), matched_controls(schedule)["constant_gain"])
    np.testing.assert_allclose(traj.gain.numpy(), float((gains * dt).sum()), rtol=1e-9)
    np.testing.assert_allclose(np.diff(traj.times.numpy()), dt, rtol=1e-12)
    assert net.told == pytest.approx(traj.times[:-1].tolist(), abs=1e-12)


@pytest.mark.parametrize("name", SHAPED)
def test_fewer_steps_is_plain_with_a_quarter(name):
    schedule = SHAPED[name]
    traj = integrate(Contracting(), start(), matched_controls(schedule)["fewer_steps"])
    assert traj.nfe == schedule.steps // 4
    assert (traj.gain == 1).all()
    assert float(traj.times[-1]) == 1.0


def test_the_noise_control_needs_a_distance():
    schedule = SHAPED["balanced"]
    assert "noise" not in matched_controls(schedule)
    controls = matched_controls(schedule, distance=0.021)
    x0 = start((500, 40), dtype=torch.float32)
    plain = integrate(Contracting(), x0, Schedule(), seeds=torch.arange(500))
    noisy = integrate(Contracting(), x0, controls["noise"], seeds=torch.arange(500))
    assert float((noisy.x1 - plain.x1).square().mean().sqrt()) == pytest.approx(0.021, rel=0.03)
    torch.testing.assert_close(noisy.energy, plain.energy, rtol=1e-6, atol=0)


def test_the_noise_control_of_a_noisy_schedule_adds_an_independent_draw():
    """Its samples are the noisy plain ones plus noise that knows nothing of theirs, at the distance asked for."""
    own, distance = 0.3, 0.2
    schedule = Schedule(KTS(0.05, 0.02), steps=4, end_noise=own)
    control = matched_controls(schedule, distance=distance)["noise"]
    assert control.noises == (own, distance)
    x0, seeds = start((800, 50)), torch.arange(800)
    silent, plain, noisy = (
        integrate(Contracting(), x0, s, seeds=seeds, base_seed=3)
        for s in (Schedule(steps=4), Schedule(steps=4, end_noise=own), control)
    )
    there, added = (plain.x1 - silent.x1) / own, (noisy.x1 - plain.x1) / distance
    assert float(added.square().mean()) == pytest.approx(1, abs=4 * (2 / 40_000) ** 0.5)
    assert abs(float((there * added).mean())) < 4 / 40_000**0.5
    part = integrate(Contracting(), x0[7:9], control, seeds=seeds[7:9], base_seed=3)
    assert torch.equal(part.x1, noisy.x1[7:9]), "both draws belong to the seed"


@given(st.lists(st.floats(0, 10), min_size=1, max_size=3))
def test_noise_on_noise_keeps_every_draw(sigmas):
    schedule = Schedule()
    for sigma in sigmas:
        schedule = schedule.with_noise(sigma)
    assert sum(s**2 for s in schedule.noises) == pytest.approx(sum(s**2 for s in sigmas))
    assert schedule.noises[-1] == sigmas[-1]
    assert Schedule(end_noise=list(schedule.noises)) == schedule, "as a results file or a configuration gives it back"


@pytest.mark.parametrize("name", SHAPED)
def test_the_controls_are_the_named_ones(name):
    got = set(matched_controls(SHAPED[name], distance=0.02))
    assert got | {"early_stop"} == {"true_clock", "early_stop", "constant_gain", "fewer_steps", "noise"}


def test_a_plain_schedule_has_nothing_to_control():
    assert matched_controls(Schedule(steps=12), distance=0.1) == {}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_leave_controls_that_run(steps):
    for control in matched_controls(Schedule(KTS(), steps=steps)).values():
        assert torch.isfinite(integrate(Contracting(), start(), control).x1).all()


@pytest.mark.parametrize("solver", ["midpoint", "heun", "rk4"])
def test_controls_keep_the_solver(solver):
    schedule = Schedule(KTS(0.1, 0.02), steps=16, solver=solver)
    for name, control in matched_controls(schedule, distance=0.1).items():
        assert control.solver == solver, name
