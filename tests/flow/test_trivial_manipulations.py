"""Noise put in on the way, blends with the start, a late brake, gains at other doses."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, Brake, Constant, Schedule, integrate, integrate_many
from fm_lightning.noise import INJECTED, noise

X0 = noise(range(5), (3,), 7).double()


def still(x, t, y=None):
    return torch.zeros_like(x)


def linear(x, t, y=None):
    return -x + t[:, None]


def test_injected_noise_belongs_to_the_seed_and_costs_no_energy():
    way = integrate(still, X0, Schedule(steps=10, inject_noise=(0.9, 0.3)), seeds=torch.arange(5), base_seed=7)
    torch.testing.assert_close(way.x1, X0 + 0.3 * noise(range(5), (3,), 7, INJECTED).double(), atol=1e-15, rtol=0)
    assert not way.energy.any()
    assert not way.displacement.any()
    part = integrate(
        still, X0[3:], Schedule(steps=10, inject_noise=(0.9, 0.3)), seeds=torch.tensor([3, 4]), base_seed=7
    )
    assert torch.equal(part.x1, way.x1[3:])


def test_sampling_goes_on_from_the_noisy_state():
    """The same as two runs: to t = .6 plainly, from there with the noise added, on the rest of the grid."""
    edges = Schedule(steps=10).edges
    x = integrate(linear, X0, Schedule(grid=edges[:7])).x1 + 0.3 * noise(range(5), (3,), 0, INJECTED).double()
    for t, end in itertools.pairwise(edges[6:]):
        x = x + (end - t) * linear(x, t.expand(5))
    got = integrate(linear, X0, Schedule(steps=10, inject_noise=(0.6, 0.3)))
    torch.testing.assert_close(got.x1, x, atol=1e-14, rtol=0)
    assert (got.excess >= -1e-12).all()


@pytest.mark.parametrize(
    ("steps", "time", "before"), [(10, 0.9, 9), (10, 0.3, 3), (10, 0.7, 7), (4, 0.9, 3), (1, 0.9, 0), (10, 0.99, 9)]
)
def test_it_is_put_in_at_the_last_edge_at_or_before_its_time(steps, time, before):
    plan = Schedule(steps=steps, inject_noise=(time, 0.2)).plan()
    assert [step.noise for step in plan] == [0.2 if i == before else 0.0 for i in range(steps)]


def test_schedules_share_the_way_up_to_the_noise():
    calls = 0

    def counted(x, t, y=None):
        nonlocal calls
        calls += 1
        return linear(x, t)

    doses = {f"{sigma}": Schedule(inject_noise=(0.9, sigma)) for sigma in (0.0, 0.1, 0.2, 0.3)}
    integrate_many(counted, X0, doses | {"base": Schedule()})
    assert calls == 100 + 3 * 10
    assert Schedule(inject_noise=(0.9, 0.0)) == Schedule()


@given(weight=st.floats(0, 0.99), scale=st.sampled_from([1.0, 0.5]), sigma=st.sampled_from([0.0, 0.1]))
def test_a_blend_mixes_the_finished_sample_with_its_start(weight, scale, sigma):
    plainly = integrate(linear, X0, Schedule(steps=5, x0_scale=scale))
    noisy = integrate(linear, X0, Schedule(steps=5, x0_scale=scale, end_noise=sigma))
    got = integrate(linear, X0, Schedule(steps=5, x0_scale=scale, end_noise=sigma, blend=weight))
    want = (1 - weight) * plainly.x1 + weight * scale * X0 + (noisy.x1 - plainly.x1)
    torch.testing.assert_close(got.x1, want, atol=1e-12, rtol=0)
    assert torch.equal(got.energy, plainly.energy)
    assert torch.equal(got.displacement, plainly.displacement)


def test_a_brake_holds_from_its_time_on():
    eta = torch.tensor([step.gains[0] for step in Schedule(gain=Brake(0.5), steps=100).plan()])
    assert (eta[:90] == 1).all()
    assert (eta[90:] == 0.5).all()
    with pytest.raises(UserError, match="above 0"):
        Schedule(gain=Brake(0.0))


@pytest.mark.parametrize(
    "gain", [KTS(0.02, 0.01), SSC(0.1, 2.0), Constant(0.9), Brake(0.7), KTS(0.1, 0.0) * Brake(0.5)]
)
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0])
def test_a_gain_at_another_dose_deviates_by_that_factor(gain, factor):
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    torch.testing.assert_close(gain.scaled(factor)(t), 1 + factor * (gain(t) - 1), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inject_noise": (1.0, 0.1)}, r"a time in \[0, 1\)"),
        ({"inject_noise": (0.9, 0.1), "t_end": 0.8}, r"\[0, 0.8\)"),
        ({"inject_noise": (-0.1, 0.1)}, "inject_noise"),
        ({"inject_noise": (0.9, -0.1)}, "deviation"),
        ({"inject_noise": (0.9, float("inf"))}, "finite"),
        ({"inject_noise": (0.9,)}, "inject_noise"),
        ({"inject_noise": 0.9}, "inject_noise"),
        ({"inject_noise": (0.9, 0.1), "solver": "dopri5"}, "fixed steps"),
        ({"blend": 1.0}, "blend=1"),
        ({"blend": -0.1}, "blend"),
        ({"blend": float("nan")}, "blend"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        Schedule(**options)
