"""What a network and a probe see while integrating, and what is said of fields that break."""

from __future__ import annotations

import re

import pytest
import torch
from fields import col, start

from fm_lightning.errors import NotFiniteError
from fm_lightning.flow import KTS, Schedule, integrate, integrate_many

NODES = {"euler": [0.0], "midpoint": [0.0, 0.5], "heun": [0.0, 1.0], "rk4": [0.0, 0.5, 0.5, 1.0]}  # a step's stages
FIXED = list(NODES)
ALL = [*FIXED, "dopri5"]


def field(x, t, y=None):
    return torch.sin(x + col(t, x)) * 1.5


class Recorder:
    """A linear field that remembers how it was called."""

    def __init__(self):
        self.t, self.y, self.x = [], [], []

    def __call__(self, x, t, y=None):
        assert t.shape == (x.shape[0],)
        assert t.is_floating_point()
        self.t.append(t.clone())
        self.y.append(y)
        self.x.append(x.clone())
        return -0.5 * x


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("solver", FIXED)
def test_nfe_counts_the_calls(solver, steps):
    net = Recorder()
    traj = integrate(net, start((3, 2)), Schedule(steps=steps, solver=solver))
    assert len(net.t) == traj.nfe == len(NODES[solver]) * steps


def test_nfe_of_dopri5_counts_the_calls():
    net = Recorder()
    traj = integrate(net, start((3, 2)), Schedule(steps=5, solver="dopri5"))
    assert len(net.t) == traj.nfe
    assert traj.nfe >= 6


@pytest.mark.parametrize("t_end", [1.0, 0.7])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_dopri5_never_asks_beyond_the_end(steps, t_end):
    """An adaptive solver that steps over the end and interpolates would ask the field at t > 1."""
    net = Recorder()
    integrate(net, start((3, 2)), Schedule(steps=steps, solver="dopri5", t_end=t_end))
    assert min(float(t.min()) for t in net.t) >= 0
    assert max(float(t.max()) for t in net.t) <= t_end


@pytest.mark.parametrize("solver", FIXED)
def test_the_network_is_told_each_stage_time_once_per_sample(solver):
    net = Recorder()
    integrate(net, start((3, 2), dtype=torch.float32), Schedule(steps=4, solver=solver))
    c = NODES[solver]
    told = [float(t[0]) for t in net.t]
    assert told == pytest.approx([(i + s) / 4 for i in range(4) for s in c], abs=1e-6)
    for t in net.t:
        assert (t == t[0]).all()


@pytest.mark.parametrize("solver", ALL)
def test_labels_and_seeds_are_passed_through(solver):
    labels, seeds = torch.tensor([3, 1, 2]), torch.tensor([10, -4, 7])
    net = Recorder()
    traj = integrate(net, start((3, 2)), Schedule(steps=3, solver=solver), labels=labels, seeds=seeds)
    assert traj.labels.tolist() == [3, 1, 2]
    assert traj.seeds.tolist() == [10, -4, 7]
    assert all(y.tolist() == [3, 1, 2] and y.dtype == torch.int64 for y in net.y)
    assert integrate(net, start((3, 2)), Schedule(steps=3, solver=solver)).labels is None
    assert net.y[-1] is None


def test_labels_condition_the_field():
    labels = torch.tensor([0, 1, 5])
    traj = integrate(lambda x, t, y=None: y[:, None].to(x).expand_as(x), torch.zeros(3, 2).double(), labels=labels)
    torch.testing.assert_close(traj.x1[:, 0], torch.tensor([0.0, 1.0, 5.0]).double())
    torch.testing.assert_close(traj.kpe.double(), torch.tensor([0.0, 1.0, 25.0]).double())


@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize("gain", [None, KTS(0.3, 0.02)])
def test_probe_sees_every_step_from_its_left_edge(solver, gain):
    x0, seen = start((3, 3)), []
    traj = integrate(
        field,
        x0,
        Schedule(gain, steps=6, solver=solver),
        probe=lambda i, t, x, v: seen.append((i, float(torch.as_tensor(t).flatten()[0]), x.clone(), v.clone())),
    )
    assert [i for i, *_ in seen] == list(range(6))
    assert [t for _, t, *_ in seen] == pytest.approx([i / 6 for i in range(6)], abs=1e-7)
    torch.testing.assert_close(seen[0][2], x0)
    for _, t, x, v in seen:  # v is the field's own velocity, before the gain
        torch.testing.assert_close(v, field(x, torch.full((3,), t).double()), rtol=1e-6, atol=1e-6)
    plain = integrate(field, x0, Schedule(gain, steps=6, solver=solver))
    assert torch.equal(plain.x1, traj.x1)


def test_the_start_is_left_as_it_was():
    x0 = start((3, 3))
    before = x0.clone()
    integrate(field, x0, Schedule(steps=5, x0_scale=2.0))
    assert torch.equal(x0, before)


def test_no_gradient_graph_is_kept():
    weight = torch.nn.Parameter(torch.eye(3))
    traj = integrate(lambda x, t, y=None: x @ weight, start((3, 3), dtype=torch.float32), Schedule(steps=3))
    assert not traj.x1.requires_grad
    assert not traj.energy.requires_grad


# ---------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("solver", FIXED)
def test_a_field_that_breaks_is_reported_with_step_time_and_schedule(solver):
    def breaks(x, t, y=None):
        return torch.where((t >= 0.5).reshape(-1, 1), torch.full_like(x, float("nan")), x)

    with pytest.raises(NotFiniteError) as caught:
        integrate_many(breaks, start((3, 2)), {"mine": Schedule(steps=10, solver=solver)})
    message = str(caught.value)
    assert "\n" not in message
    assert "mine" in message
    first = 5 if solver in ("euler", "midpoint") else 4  # Heun and RK4 evaluate the right edge too
    assert re.search(rf"\bstep {first}\b", message), message
    assert f"{first / 10}" in message


def test_one_broken_sample_is_enough():
    def breaks(x, t, y=None):
        v = torch.ones_like(x)
        v[1, 0] = float("inf")
        return v

    with pytest.raises(NotFiniteError, match="1 of 3"):
        integrate(breaks, start((3, 2)), Schedule(steps=2))


@pytest.mark.parametrize("broken", ["nan", "inf", "late", "explodes"])
def test_a_broken_field_is_reported_by_dopri5_too(broken):
    def velocity(x, t, y=None):
        if broken == "explodes":
            return x * x  # infinite at t = 1 / 3
        bad = torch.full_like(x, float("inf" if broken == "inf" else "nan"))
        return torch.where((t >= 0.5).reshape(-1, 1), bad, x) if broken == "late" else bad

    with pytest.raises(NotFiniteError) as caught:
        integrate_many(velocity, torch.full((3, 2), 3.0), {"mine": Schedule(steps=4, solver="dopri5")})
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("solver", ALL)
def test_a_rank_without_samples_gets_an_empty_trajectory(solver):
    none = torch.zeros(0, dtype=torch.int64)
    traj = integrate(
        lambda x, t, y=None: x, torch.ones(0, 2), Schedule(steps=4, solver=solver), labels=none, seeds=none
    )
    assert traj.x1.shape == (0, 2)
    assert traj.energy.shape == (4, 0)
    assert traj.kpe.shape == traj.field_energy.shape == traj.excess.shape == (0,)
