"""Sampling that begins above t = 0, at the largest noise level that a network was trained on."""

from __future__ import annotations

import math

import pytest
import torch
from fields import start

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Schedule, integrate, integrate_many, log_likelihood, true_clock
from fm_lightning.table.keys import definition

STD = 0.4


def deviation(t: float) -> float:
    return math.hypot(t * STD, 1 - t)


def gaussian(x, t, y=None):
    """The velocity of data N(0, STD^2)."""
    t = t[:, None]
    return (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * x


@pytest.mark.parametrize("grid", ["uniform", "cosine", "shifted:2"])
def test_named_grids_begin_there(grid):
    edges = Schedule(steps=7, grid=grid, t_start=0.2, t_end=0.9).edges
    assert edges[0] == 0.2
    assert edges[-1] == 0.9
    torch.testing.assert_close((edges - 0.2) / 0.7, Schedule(steps=7, grid=grid).edges)
    own = Schedule(grid=[0.1, 0.5, 1.0])
    assert (own.t_start, own.t_end, own.steps) == (0.1, 1.0, 2)
    assert definition(Schedule(t_start=0.0)) == {"class": "Schedule"}


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_the_start_is_the_noise_of_that_level(solver, scale):
    x0 = start((6, 3))
    schedule = Schedule(steps=60, solver=solver, t_start=0.3, x0_scale=scale)
    path = integrate(gaussian, x0, schedule)
    begin = x0 * scale * 0.7
    torch.testing.assert_close(path.x1, begin * STD / deviation(0.3), rtol=5e-4, atol=1e-5)
    torch.testing.assert_close(path.displacement, (path.x1 - begin).square().sum(1) / 2)
    assert path.times[0] == 0.3
    assert len(path.energy) == 60


def test_the_density_is_the_starts():
    x0 = start((6, 3))
    found = log_likelihood(gaussian, x0, Schedule(steps=60, solver="rk4", t_start=0.3))
    std = 0.7 * STD / deviation(0.3)
    wanted = torch.distributions.Normal(0.0, std).log_prob(found.x1).sum(1)
    torch.testing.assert_close(found.log_p, wanted, rtol=1e-6, atol=1e-6)


def test_a_gain_and_its_true_clock_begin_there():
    schedule = Schedule(KTS(0.1, 0.02), steps=20, t_start=0.25, t_end=0.95)
    assert schedule.plan()[0].gains[0] == float(KTS(0.1, 0.02)(torch.tensor(0.25, dtype=torch.float64)))
    clock = true_clock(schedule).edges
    assert clock[0] == 0.25
    assert clock[-1] == 0.95
    moved = Schedule(KTS(0.1, 0.02), steps=20, t_start=0.25, told_time="displacement").plan()
    assert moved[0].told == (0.25,)


def test_starts_are_told_apart_in_one_call():
    x0 = start((4, 2))
    rows = {
        "zero": Schedule(steps=8),
        "later": Schedule(steps=8, t_start=0.2),
        "scaled": Schedule(steps=8, x0_scale=0.8),
    }
    many = integrate_many(gaussian, x0, rows)
    for name, schedule in rows.items():
        assert torch.equal(many[name].x1, integrate(gaussian, x0, schedule).x1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_start": -0.1}, "t_start=-0.1 must be"),
        ({"t_start": 1.0}, "t_start=1 must be"),
        ({"t_start": 0.5, "t_end": 0.5}, "below t_end=0.5"),
        ({"t_start": float("nan")}, "t_start=nan"),
        ({"t_start": 0.2, "grid": [0.1, 1.0]}, "contradicts a grid that begins at 0.1"),
        ({"grid": [-0.1, 1.0]}, "ascending times"),
        ({"t_start": 0.5, "inject_noise": (0.2, 0.1)}, r"a time in \[0.5, 1\)"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Schedule(**options)
