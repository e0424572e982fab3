"""SDE sampling against closed forms and against SiT's formulas with the same noise."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from fields import start

from fm_lightning.errors import NotFiniteError, UserError
from fm_lightning.flow import KTS, Diffusion, EmpiricalVelocity, Schedule, integrate, integrate_many, log_likelihood
from fm_lightning.noise import DIFFUSION, NoiseStream
from fm_lightning.table.keys import definition

MEAN, STD = 0.7, 0.4


def gaussian(x, t, y=None):
    """The velocity of data N(MEAN, STD^2)."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return MEAN + (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * (x - t * MEAN)


def curved(x, t, y=None):
    t = t[:, None]
    return torch.sin(3 * x + t) * (1 - t) + torch.roll(x, 1, 1) * 0.5


def moments(schedule: Schedule) -> tuple[float, float]:
    """Mean and standard deviation at the end, without Monte Carlo error.

    Every step is affine in the state and its noise, so that regression on start and draws finds the coefficients.
    """
    n = 3 * schedule.steps
    x0 = start((n, 1))
    end = integrate(gaussian, x0, schedule).x1
    stream = NoiseStream(range(n), (1,), 0, DIFFUSION, schedule.steps)
    columns = [torch.ones_like(x0), x0, *(stream.draw().double() for _ in range(schedule.steps - 1))]
    coefficients = torch.linalg.lstsq(torch.cat(columns, 1), end).solution[:, 0]
    return float(coefficients[0]), float(coefficients[1:].norm())


@pytest.mark.parametrize("form", ["sigma", "sbdm"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_mean_and_deviation_of_a_gaussian_converge(scale, form):
    """At scale 2 errors keep their sign: Euler-Maruyama shows order one and Heun order two. At .5 Heun's error is below 1e-3."""

    def error(solver: str, steps: int) -> float:
        mean, std = moments(Schedule(steps=steps, solver=solver, diffusion=Diffusion(scale, form)))
        assert mean == pytest.approx(MEAN, abs=1e-9), "the mean follows a straight line"
        return abs(std - STD)

    euler, heun = (math.log2(error(solver, 50) / error(solver, 100)) for solver in ("euler", "heun"))
    assert 0.8 < euler < 1.5
    assert 1.7 < heun < 2.4 if scale == 2 else error("heun", 100) < 1e-3


def sit_sampler(velocity, x, times, draws, solver, form, scale):
    """SiT's ``sdeint`` written from its formulas: D = w / 2, then its "Euler" last step."""

    def diffusion(t):
        return scale * (1 - t) if form == "sigma" else scale * (1 - t) / t

    def drift(x, t):
        v = velocity(x, torch.full((len(x),), t, dtype=x.dtype))
        reverse_alpha_ratio, sigma, d_sigma = t, 1 - t, -1.0
        var = sigma**2 - reverse_alpha_ratio * d_sigma * sigma
        return v + diffusion(t) * (reverse_alpha_ratio * v - x) / var

    for i, (t, end) in enumerate(itertools.pairwise(times[:-1])):
        dt = end - t
        if form == "sbdm" and i == 0:
            x = x + dt * velocity(x, torch.full((len(x),), t, dtype=x.dtype))
            continue
        dw = draws[i] * dt**0.5
        if solver == "euler":
            x = x + drift(x, t) * dt + math.sqrt(2 * diffusion(t)) * dw
        else:
            x = x + math.sqrt(2 * diffusion(t)) * dw
            k1 = drift(x, t)
            x = x + dt / 2 * (k1 + drift(x + dt * k1, end))
    return x + velocity(x, torch.full((len(x),), times[-2], dtype=x.dtype)) * (times[-1] - times[-2])


@pytest.mark.parametrize("form", ["sigma", "sbdm"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_sits_sampler_with_the_same_noise(solver, form, scale):
    times = [*torch.linspace(0, 0.96, 25, dtype=torch.float64).tolist(), 1.0]
    x0, seeds = start((7, 3)), torch.arange(7) + 11
    stream = NoiseStream(seeds, (3,), 5, DIFFUSION, len(times))
    draws = [stream.draw().double() for _ in times]
    schedule = Schedule(grid=times, solver=solver, diffusion=Diffusion(scale, form))
    ours = integrate(curved, x0, schedule, seeds=seeds, base_seed=5)
    theirs = sit_sampler(curved, x0, times, draws, solver, form, scale)
    torch.testing.assert_close(ours.x1, theirs, rtol=1e-9, atol=1e-9)


def test_noise_belongs_to_the_seed_in_any_company():
    x0, seeds = start((6, 3)), torch.tensor([3, 1, 4, 15, 9, 2])
    rows = {
        "base": Schedule(steps=12),
        "kts": Schedule(KTS(), steps=9),
        "sigma": Schedule(steps=12, diffusion=Diffusion()),
        "sbdm": Schedule(steps=12, diffusion=Diffusion(0.5, "sbdm")),
        "heun": Schedule(steps=20, solver="heun", diffusion=Diffusion()),
    }
    many = integrate_many(curved, x0, rows, seeds=seeds)
    for name, schedule in rows.items():
        alone = integrate(curved, x0, schedule, seeds=seeds)
        assert torch.equal(alone.x1, many[name].x1)
        assert torch.equal(alone.energy, many[name].energy)
        for part in (slice(0, 2), slice(2, 6)):
            few = integrate(curved, x0[part], schedule, seeds=seeds[part])
            torch.testing.assert_close(few.x1, alone.x1[part], rtol=1e-12, atol=1e-12)
    assert not torch.equal(many["sigma"].x1, integrate(curved, x0, rows["sigma"], seeds=seeds, base_seed=1).x1)


def test_energy_is_the_velocitys_and_displacement_is_empty():
    seen = []
    schedule = Schedule(steps=15, diffusion=Diffusion())
    path = integrate(curved, start((4, 3)), schedule, probe=lambda i, t, x, v: seen.append(v.square().sum(1) / 2 / 15))
    torch.testing.assert_close(path.energy, torch.stack(seen))
    torch.testing.assert_close(path.field_energy, path.kpe)
    assert path.displacement.isnan().all()
    assert path.excess.isnan().all()
    assert path.nfe == 15
    assert integrate(curved, start((4, 3)), Schedule(steps=15, solver="heun", diffusion=Diffusion())).nfe == 29


def test_beginnings_and_no_diffusion_are_shared():
    assert Schedule(diffusion=Diffusion(0.0)) == Schedule()
    one_step = integrate_many(
        curved, start(), {"ode": Schedule(steps=1), "sde": Schedule(steps=1, diffusion=Diffusion())}
    )
    assert torch.equal(one_step["ode"].x1, one_step["sde"].x1)
    calls = []
    rows = {"ode": Schedule(steps=5), "sde": Schedule(steps=5, diffusion=Diffusion())}
    integrate_many(lambda x, t, y=None: calls.append(1) or curved(x, t), start(), rows)
    assert len(calls) == 9, "the first velocity is common"


def test_the_closed_form_field_ends_on_its_data():
    data = start((5, 2))
    path = integrate(EmpiricalVelocity(data), start((8, 2)), Schedule(steps=50, diffusion=Diffusion()))
    assert (path.x1[:, None] - data[None]).norm(dim=2).min(1).values.max() < 1e-2


def test_keys_name_a_diffusion_only_where_there_is_one():
    assert definition(Schedule()) == {"class": "Schedule"}
    assert definition(Schedule(diffusion=Diffusion())) == {"class": "Schedule", "diffusion": {"class": "Diffusion"}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Diffusion(form="constant"), "A constant diffusion has no limit at t = 1. Choose among sigma, sbdm"),
        (lambda: Diffusion(form="linear"), "form='linear' is unknown"),
        (lambda: Diffusion(-1.0), "scale=-1 must be"),
        (lambda: Diffusion(math.inf), "scale=inf must be"),
        (lambda: Schedule(KTS(), diffusion=Diffusion()), "A gain has no meaning with a diffusion"),
        *(
            (lambda s=s: Schedule(solver=s, diffusion=Diffusion()), f"solver='{s}'")
            for s in ("midpoint", "rk4", "dopri5")
        ),
        (lambda: log_likelihood(curved, start(), Schedule(diffusion=Diffusion())), "diffusion"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_what_explodes_is_named():
    def velocity(x, t, y=None):
        return x * 1e200 * (t[:, None] > 0.55)

    rows = {"calm": Schedule(steps=10, t_end=0.5), "wild": Schedule(steps=10, diffusion=Diffusion())}
    with pytest.raises(NotFiniteError, match="'wild' gives infinite or NaN values"):
        integrate_many(velocity, start(), rows)
