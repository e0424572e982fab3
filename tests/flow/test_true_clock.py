"""The control that belongs to a schedule: its step sizes, and nothing else of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import Contracting, start
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.flow import KTS, SSC, Constant, Schedule, integrate, true_clock

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
    control = true_clock(schedule)
    gains, dt = lengths(schedule)
    control_gains, control_dt = lengths(control)
    assert (control_gains == 1).all()
    np.testing.assert_allclose(control_dt, gains * dt / (gains * dt).sum(), rtol=1e-9)
    net = Contracting()
    traj = integrate(net, start(), control)
    assert float(traj.times[-1]) == 1.0
    assert net.told == pytest.approx(traj.times[:-1].tolist(), abs=1e-12)
    assert traj.nfe == schedule.steps


@given(st.integers(1, 60))
def test_any_number_of_steps_can_be_controlled(steps):
    clock = true_clock(Schedule(KTS(), steps=steps))
    assert clock.steps == steps
    assert clock.gain is None


def test_what_has_no_clock_of_its_own():
    assert true_clock(Schedule(steps=12)) is None
    assert true_clock(Schedule(Constant(-0.5), allow_reverse=True)) is None
