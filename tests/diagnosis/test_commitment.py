"""Commitment by hand and on the closed form; power on and off its trajectories; the bridge's density."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from fm_lightning.diagnosis.commitment import CommitmentProbe, commitment_times
from fm_lightning.diagnosis.power_profile import PowerProbe, bridge_log_density, bridge_power, power, power_law
from fm_lightning.errors import UserError
from fm_lightning.flow import EmpiricalVelocity, Schedule, integrate


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_commitment_by_hand():
    """Sample 0 changes its mind before t = 0.5, sample 1 never does, sample 2 ends elsewhere."""
    seen = torch.tensor([[1, 4, 0], [2, 4, 0], [7, 4, 0], [7, 4, 0]])
    times = torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=torch.float64)
    assert commitment_times(seen, torch.tensor([7, 4, 3]), times).tolist() == [0.5, 0.0, 1.0]


def test_a_straight_way_to_an_image_commits_at_once():
    data = normal(6, 3)
    goal = data[torch.tensor([5, 0, 2, 2])]
    x0 = normal(4, 3, seed=1)
    probe = CommitmentProbe(data)
    trajectory = integrate(lambda x, t, y: goal - x0, x0, Schedule(steps=5), probe=probe)
    found = probe.commitment(trajectory.x1)
    assert found.tolist() == [0, 0, 0, 0]
    assert [step.tolist() for step in probe.nearest] == [[5, 0, 2, 2]] * 5


def test_the_closed_form_commits_on_the_way():
    data = normal(20, 4)
    probe = CommitmentProbe(data)
    trajectory = integrate(EmpiricalVelocity(data), normal(60, 4, seed=1), Schedule(steps=50), probe=probe)
    found = probe.commitment(trajectory.x1)
    assert 0 < float(found.median()) < 0.9
    image = torch.cdist(trajectory.x1, data).argmin(1)
    assert torch.equal(probe.nearest[-1], image)
    # Just before its commitment a sample still pointed elsewhere.
    i = int(found.argmax())
    before = probe.times.index(float(found[i])) - 1
    assert probe.nearest[before][i] != image[i]


def test_the_closed_forms_power_has_a_plateau_on_and_the_law_off_its_trajectories():
    data, held = normal(50, 6), normal(50, 6, seed=1)
    x0 = normal(50, 6, seed=2)
    field = EmpiricalVelocity(data)
    probe = PowerProbe()
    trajectory = integrate(field, x0, Schedule(steps=200), probe=probe)
    torch.testing.assert_close(probe.power.float(), trajectory.power, rtol=1e-4, atol=1e-5)
    on = power_law(probe.times, probe.power)
    assert abs(on.exponent.value) < 0.1
    assert on.spread < 1.3
    off = power_law(probe.times, bridge_power(field, x0, held, probe.times))
    assert off.exponent.value == pytest.approx(-2, abs=0.35)
    assert off.spread > 50
    fresh = PowerProbe(field)
    integrate(lambda x, t, y: held - x0, x0, Schedule(steps=200), probe=fresh)
    torch.testing.assert_close(fresh.power, bridge_power(field, x0, held, fresh.times), rtol=1e-2, atol=1e-3)


def test_a_law_by_hand():
    times = torch.linspace(0, 0.99, 100, dtype=torch.float64)
    found = power_law(times, 3 * (1 - times) ** -1.5)
    assert found.exponent.value == pytest.approx(-1.5)
    assert found.spread == pytest.approx(20**1.5)
    flat = power_law(times, torch.zeros(100))
    assert flat.exponent.value is None
    assert flat.plateau == 0
    assert power(torch.tensor([[[3.0], [4.0]]])).tolist() == [12.5]


def test_the_bridges_density():
    data, x = normal(7, 3).double(), normal(5, 3, seed=1).double()
    for t in (0.0, 0.3, 0.95):
        kernels = [
            MultivariateNormal(t * point, (1 - t) ** 2 * torch.eye(3, dtype=torch.float64)).log_prob(x)
            for point in data
        ]
        expected = torch.stack(kernels).logsumexp(0) - math.log(7)
        torch.testing.assert_close(bridge_log_density(x, t, data), expected, rtol=1e-9, atol=1e-9)


def test_refused():
    data = normal(4, 2)
    with pytest.raises(UserError, match="seen 0 samples, not 3"):
        CommitmentProbe(data).commitment(normal(3, 2))
    with pytest.raises(UserError, match="seen no step"):
        _ = PowerProbe().power
    with pytest.raises(UserError, match="t=1"):
        bridge_log_density(data, 1.0, data)
    with pytest.raises(UserError, match="1 step between"):
        power_law([0.1, 0.9], torch.ones(2))
    with pytest.raises(UserError, match="times of 3, powers of 2"):
        power_law([0.1, 0.9, 0.95], torch.ones(2))
    with pytest.raises(UserError, match="4 noises with 3 samples"):
        bridge_power(EmpiricalVelocity(data), data, data[:3], torch.tensor([0.5]))
