"""Log-likelihoods against closed forms: a Gaussian's, and the mixture that the closed-form velocity makes of a training set."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, EmpiricalVelocity, Schedule, integrate
from fm_lightning.flow.likelihood import log_likelihood
from fm_lightning.nets import ResidualMLP

FINE = Schedule(steps=40, solver="rk4")


class GaussianVelocity:
    """x_t ~ N(t m, s_t^2) with ``s_t^2 = (1 - t)^2 + t^2 S^2``; so ``v = m + (s_t' / s_t) (x - t m)`` carries it."""

    def __init__(self, mean, scale):
        self.mean, self.scale = mean, scale

    def __call__(self, x, t, y=None):
        t = t[:, None]
        variance = (1 - t) ** 2 + t**2 * self.scale**2
        half_slope = -(1 - t) + t * self.scale**2
        return self.mean + half_slope / variance * (x - t * self.mean)


MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
SCALE = torch.tensor([0.5, 1.5, 0.1], dtype=torch.float64)


def noise64(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normal(x, mean, scale):
    return torch.distributions.Normal(mean, scale).log_prob(x).sum(1)


def test_a_gaussian():
    found = log_likelihood(GaussianVelocity(MEAN, SCALE), noise64(50, 3), Schedule(steps=100, solver="rk4"))
    torch.testing.assert_close(found.log_p, normal(found.x1, MEAN, SCALE), atol=1e-4, rtol=0)
    assert found.standard_error is None
    assert (found.forwards, found.backwards) == (400, 1200)
    torch.testing.assert_close(found.profile.sum(0), found.divergence)
    torch.testing.assert_close(found.log_p, found.log_p0 - found.divergence)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_errors_shrink_with_the_solvers_order(solver, order):
    scale = torch.tensor([0.6, 1.5, 0.8], dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        found = log_likelihood(GaussianVelocity(MEAN, scale), noise64(50, 3), Schedule(steps=steps, solver=solver))
        errors.append(float((found.log_p - normal(found.x1, MEAN, scale)).abs().mean()))
    assert errors[0] / errors[1] > 0.75 * 2**order


def test_the_closed_form_makes_a_mixture():
    """At t < 1: p_t = 1/N sum_n N(t x_n, (1 - t)^2 I), which knows nothing of divergences."""
    data = noise64(12, 2, seed=1)
    t = 0.8
    found = log_likelihood(EmpiricalVelocity(data), noise64(40, 2), Schedule(steps=80, solver="rk4", t_end=t))
    kernels = -torch.cdist(found.x1, t * data).square() / (2 * (1 - t) ** 2)
    expected = kernels.logsumexp(1) - math.log(12) - math.log(2 * math.pi * (1 - t) ** 2)
    torch.testing.assert_close(found.log_p, expected, atol=1e-4, rtol=0)


def test_a_gain_scales_the_divergence():
    """dx/dt = 2 A x with gain 2: log p falls by 2 tr A, for any clock of the field; a launch by its own integral."""

    def linear(x, t, y=None):
        return x * torch.tensor([0.3, -0.1, 0.4], dtype=x.dtype)

    x0 = noise64(5, 3)
    gain = KTS(alpha=0.5, beta=0.0)
    schedule = Schedule(gain=gain, steps=10)
    found = log_likelihood(linear, x0, schedule)
    torch.testing.assert_close(
        found.divergence, torch.full((5,), 0.6 * float(schedule.advances.sum()), dtype=torch.float64)
    )
    torch.testing.assert_close(found.x1, integrate(linear, x0, schedule).x1)


def test_the_samples_are_integrates():
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    def field(x, t, y):
        return net(x) * (1 + t[:, None])

    x0 = torch.randn(6, 2)
    for solver in ("euler", "midpoint", "heun", "rk4"):
        schedule = Schedule(steps=7, solver=solver, gain=KTS(0.02, 0.02), x0_scale=0.9, told_time="floor999")
        torch.testing.assert_close(log_likelihood(field, x0, schedule).x1, integrate(field, x0, schedule).x1)


def test_scaled_noise_has_its_own_density():
    found = log_likelihood(lambda x, t, y: 0 * x, noise64(4, 3), Schedule(steps=1, x0_scale=0.5))
    torch.testing.assert_close(found.log_p, normal(found.x1, torch.zeros(3), 0.5 * torch.ones(3)).double())


def test_hutchinsons_standard_error_is_honest():
    """Against the exact divergence of a curved field; signs alone, so that a diagonal Jacobian would be exact."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 20)).double()

    def field(x, t, y):
        return 3 * net(x)

    x0, schedule = noise64(200, 20), Schedule(steps=5)
    exact = log_likelihood(field, x0, schedule)
    rough = log_likelihood(field, x0, schedule, probes=16)
    assert (rough.forwards, rough.backwards) == (5, 80)
    assert (exact.forwards, exact.backwards) == (5, 100)
    z = (rough.log_p - exact.log_p) / rough.standard_error
    assert abs(float(z.mean())) < 0.3
    assert 0.85 < float(z.std()) < 1.3
    again = log_likelihood(field, x0, schedule, probes=4, seeds=torch.arange(200))
    torch.testing.assert_close(
        again.log_p[3:9], log_likelihood(field, x0[3:9], schedule, probes=4, seeds=torch.arange(3, 9)).log_p
    )
    assert not torch.equal(again.log_p, log_likelihood(field, x0, schedule, probes=4, base_seed=1).log_p)
    diagonal = log_likelihood(GaussianVelocity(MEAN, SCALE), noise64(5, 3), FINE, probes=2)
    assert float(diagonal.standard_error.max()) < 1e-9


def test_labels_and_images():
    def field(x, t, y):
        return x * y[:, None, None, None].to(x)

    found = log_likelihood(field, torch.randn(3, 1, 2, 2), Schedule(steps=4), labels=torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found.divergence, torch.tensor([0.0, 4.0, 8.0], dtype=torch.float64))
    torch.testing.assert_close(found.bits_per_dim, -found.log_p / (4 * math.log(2)))


def test_the_exact_divergence_is_the_trace_of_autograds_jacobian():
    """Of the digits' network, 64 dimensions, along two steps: ``x_1 = x_0 + v(x_0, 0) / 2``."""
    torch.manual_seed(0)
    net = ResidualMLP([1, 8, 8], width=16, depth=2).double()
    x0 = noise64(3, 64).reshape(3, 1, 8, 8)
    found = log_likelihood(net, x0, Schedule(steps=2))
    assert found.standard_error is None
    second = x0 + net(x0, torch.zeros(3, dtype=torch.float64)).detach() / 2
    for i in range(3):
        traces = []
        for x, t in ((x0, 0.0), (second, 0.5)):
            at = torch.tensor([t], dtype=torch.float64)
            jacobian = torch.autograd.functional.jacobian(lambda z, at=at: net(z, at), x[i : i + 1])
            traces.append(jacobian.reshape(64, 64).trace())
        torch.testing.assert_close(found.profile[:, i], torch.stack(traces) / 2, rtol=1e-10, atol=1e-10)


def test_many_dimensions_take_probes():
    found = log_likelihood(lambda x, t, y: 0.1 * x, torch.randn(2, 1, 12, 12), Schedule(steps=3))
    assert found.backwards == 24
    torch.testing.assert_close(found.divergence, torch.full((2,), 14.4, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: log_likelihood(lambda x, t, y: x, x, Schedule(solver="dopri5")),
            "needs a solver with fixed steps",
        ),
        (lambda x: log_likelihood(lambda x, t, y: x, x, Schedule(end_noise=0.1)), "path without end_noise"),
        (lambda x: log_likelihood(lambda x, t, y: x, x, Schedule(inject_noise=(0.5, 0.1))), "without .*inject_noise"),
        (lambda x: log_likelihood(lambda x, t, y: x, x, Schedule(blend=0.1)), "blend"),
        (lambda x: log_likelihood(lambda x, t, y: torch.zeros_like(x), x), "carries no gradient"),
        (lambda x: log_likelihood(lambda x, t, y: x, x, probes=-1), "probes=-1 must be"),
    ],
)
def test_refused(call, message):
    with pytest.raises(UserError, match=message):
        call(noise64(2, 3))
