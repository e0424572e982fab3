"""Adaptive solving: the tolerance holds for every sample, in any batch."""

from __future__ import annotations

import math

import pytest
import torch
from fields import start

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.flow.adaptive import worst_sample
from fm_lightning.flow.solvers import SOLVERS, Adaptive, Tableau

DOPRI5 = Schedule(steps=4, solver="dopri5")


def rotation(x, t, y=None):
    """Each sample turns at a speed of its own, which the third coordinate holds."""
    speed = x[:, 2:]
    return torch.cat([-speed * x[:, 1:2], speed * x[:, :1], torch.zeros_like(speed)], 1)


def turning(speeds):
    one = torch.ones(len(speeds), 1).double()
    return torch.cat([one, 0 * one, torch.tensor(speeds)[:, None].double()], 1)


def errors(x0):
    traj = integrate(rotation, x0, DOPRI5)
    angle = x0[:, 2]
    return (traj.x1[:, :2] - torch.stack([angle.cos(), angle.sin()], 1)).norm(dim=1), traj.nfe


@pytest.mark.parametrize("company", [1, 100, 1000])
def test_a_hard_sample_keeps_its_tolerance_in_easy_company(company):
    """Averaged over the batch, its error would be allowed to grow with the square root of the company."""
    alone, evaluations = errors(turning([20.0]))
    together, same = errors(turning([20.0] + [0.1] * company))
    assert same == evaluations, "the company takes the steps of the hard sample"
    assert float(together[0]) == pytest.approx(float(alone[0]), rel=1e-6)
    assert float(together.max()) < 20 * SOLVERS["dopri5"].tolerance * 10


def test_the_worst_sample_decides():
    state = torch.zeros(3, 2, 2)
    state[1] = 3.0
    energies = torch.full((3,), 100.0)  # left out
    assert float(worst_sample((state, energies, energies))) == 3.0
    assert float(worst_sample((state[:0], energies[:0], energies[:0]))) == 0.0
    state[2, 0, 0] = torch.nan
    assert math.isnan(float(worst_sample((state, energies, energies))))


def test_schedules_say_whether_their_samples_are_paired():
    """A seed's sample does not change with its company, except under a solver that says so."""
    x0 = turning([20.0, 0.1, 3.0])
    for solver, method in SOLVERS.items():
        schedule = Schedule(steps=40, solver=solver)
        whole, alone = (integrate(rotation, x, schedule).x1[-1] for x in (x0, x0[2:]))
        assert schedule.paired == method.fixed_steps == torch.equal(whole, alone), solver


def test_a_solver_is_a_value_of_a_type():
    assert {name for name, method in SOLVERS.items() if isinstance(method, Adaptive)} == {"dopri5"}
    assert {name for name, method in SOLVERS.items() if isinstance(method, Tableau)} == {
        "euler",
        "midpoint",
        "heun",
        "rk4",
    }
    assert Schedule(solver="heun").method is SOLVERS["heun"]


def test_the_gain_of_an_adaptive_step_is_its_integral():
    schedule = Schedule(KTS(0.0, 0.02, launch="constant"), steps=5, grid="cosine", solver="dopri5")
    u = ((schedule.edges - 0.6) / 0.4).clamp_min(0)  # primitive of 1 - 0.02 (exp(3 u) - 1)
    primitive = schedule.edges - 0.02 * 0.4 * (torch.expm1(3 * u) / 3 - u)
    torch.testing.assert_close(schedule.advances, torch.diff(primitive), rtol=1e-5, atol=0)
    assert float(schedule.advances.sum()) == pytest.approx(float(primitive[-1]), rel=1e-6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: DOPRI5.plan(),
        lambda: Schedule(solver="dopri5", told_time="displacement"),
        lambda: Schedule(solver="dopri5", inject_noise=(0.5, 0.1)),
        lambda: integrate(rotation, start(), DOPRI5, probe=lambda *_: None),
    ],
)
def test_what_needs_fixed_steps_says_so(ask):
    with pytest.raises(UserError, match=r"fixed steps.* Use solver='rk4'") as caught:
        ask()
    assert "\n" not in str(caught.value)
