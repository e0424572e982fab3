"""What a velocity declares, what it must return, and what guidance leaves in a trajectory."""

from __future__ import annotations

import pytest
import torch
from fields import col, start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fm_lightning.errors import UserError
from fm_lightning.flow import (
    KTS,
    DeclaredVelocity,
    EmpiricalVelocity,
    GuidedVelocity,
    Schedule,
    integrate,
    integrate_many,
    log_likelihood,
)
from fm_lightning.nets import Guided, ResidualMLP, UNet, Velocity

STAGES = {"euler": [0.0], "midpoint": [0.0, 0.5], "heun": [0.0, 1.0], "rk4": [0.0, 0.5, 0.5, 1.0]}


class Labelled(Velocity):
    """v = sin(x + t) + y, with 2 as the null label; it keeps the rows and times of its calls."""

    num_classes, null_label = 2, 2

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, t, y=None):
        self.calls.append((len(x), float(t[0])))
        return torch.sin(x + col(t, x)) + col(y, x)


LABELS = torch.tensor([0, 1, 1, 0, 1])


# ---------------------------------------------------------------- facts


def test_networks_and_the_closed_form_declare_what_they_are():
    nets = [ResidualMLP([3]), UNet((1, 8, 8), 8, 1, (1,), (), num_heads=1, groups=4), EmpiricalVelocity(start())]
    for velocity in (*nets, Guided(Labelled(), 2.0)):
        assert isinstance(velocity, DeclaredVelocity)
        assert velocity.evaluations(0.5) in (1, 2)
        assert callable(velocity.at(0.5))
    assert isinstance(Guided(Labelled(), 2.0), GuidedVelocity)
    for velocity in (nn.Linear(3, 3), lambda x, t, y: x):
        assert not isinstance(velocity, DeclaredVelocity)
    assert not isinstance(nets[0], GuidedVelocity)
    assert EmpiricalVelocity(start()).singular_end


def test_a_declaration_needs_no_base_class():
    asked = []

    class Halves:
        """Two networks, of which the second works from t = 0.5 on: different functions of (x, t, y)."""

        singular_end = False

        def early(self, x, t, y=None):
            asked.append(("early", len(x)))
            return torch.ones_like(x)

        def late(self, x, t, y=None):
            asked.append(("late", len(x)))
            return torch.zeros_like(x)

        def __call__(self, x, t, y=None):
            raise AssertionError("the integrator knows the time")

        def evaluations(self, t):
            return 3 if t < 0.5 else 1

        def at(self, t):
            return self.early if t < 0.5 else self.late

    traj = integrate(Halves(), torch.zeros(4, 2), Schedule(steps=4))
    assert asked == [("early", 4)] * 2 + [("late", 4)] * 2
    assert traj.nfe == 3 + 3 + 1 + 1
    assert (traj.x1 == 0.5).all()


def test_only_calls_of_one_function_are_merged():
    """Two schedules at different told times, one inside the guidance interval, one not."""
    net = Labelled()
    schedules = {"early": Schedule(grid=[0, 0.2, 0.3, 1.0]), "late": Schedule(grid=[0, 0.2, 0.6, 1.0])}
    field = Guided(net, 2.0, interval=(0.0, 0.5))
    got = integrate_many(field, start(), schedules, labels=LABELS, merge_rows=1000)
    # At t = 0 and 0.2 they are one branch; then 0.3 is guided and 0.6 is not.
    assert [rows for rows, _ in net.calls] == [10, 10, 10, 5]
    for name, schedule in schedules.items():
        alone = integrate(field, start(), schedule, labels=LABELS)
        torch.testing.assert_close(got[name].x1, alone.x1, rtol=1e-12, atol=1e-12)
        assert got[name].nfe == alone.nfe == (6 if name == "early" else 5)


def test_a_merged_batch_of_guided_calls_keeps_its_rows():
    net = Labelled()
    schedules = {str(a): Schedule(KTS(a, 0.0), steps=4) for a in (0.1, 0.2, 0.3, 0.4)}
    integrate_many(Guided(net, 2.0), start(), schedules, labels=LABELS, merge_rows=20)
    assert max(rows for rows, _ in net.calls) == 20


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.6), (0.55, 1.0), (0.0, 0.05)])
def test_nfe_counts_the_evaluations_that_were_made(solver, interval):
    net = Labelled()
    traj = integrate(Guided(net, 2.0, interval=interval), start(), Schedule(steps=10, solver=solver), labels=LABELS)
    assert traj.nfe * 5 == sum(rows for rows, _ in net.calls)
    times = [(i + c) / 10 for i in range(10) for c in STAGES[solver]]
    lo, hi = interval
    assert traj.nfe == sum(2 if lo - 1e-12 <= t <= hi + 1e-12 else 1 for t in times)


def test_nfe_of_an_adaptive_solver_counts_guidance():
    net = Labelled()
    traj = integrate(Guided(net, 2.0, interval=(0.2, 0.6)), start(), Schedule(steps=2, solver="dopri5"), labels=LABELS)
    assert traj.nfe * 5 == sum(rows for rows, _ in net.calls)
    assert {rows for rows, _ in net.calls} == {5, 10}


# ---------------------------------------------------------------- guidance recorded


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("gain", [None, KTS(0.2, 0.02)])
def test_recorded_guidance_equals_what_the_velocities_say(solver, channels, gain):
    net, x0 = Labelled(), start((5, 3))
    schedule = Schedule(gain, steps=6, solver=solver)
    field = Guided(net, 2.5, channels=channels, interval=(0.3, 0.8), record=True)
    silent = Guided(net, 2.5, channels=channels, interval=(0.3, 0.8))
    states = []
    plain = integrate(silent, x0, schedule, labels=LABELS, probe=lambda i, t, x, v: states.append((t, x)))
    assert plain.guidance_energy is None
    assert plain.guidance_gap is None
    traj = integrate(field, x0, schedule, labels=LABELS)
    for name in ("x1", "energy", "field_energy"):
        assert torch.equal(getattr(traj, name), getattr(plain, name)), "recording changes nothing"
    assert traj.nfe == plain.nfe
    gaps = []
    for t, x in states:
        times = torch.full((5,), t).double()
        gap = (net(x, times, LABELS) - net(x, times, torch.full_like(LABELS, 2))).norm(dim=1)
        gaps.append(gap if 0.3 <= t <= 0.8 else torch.full_like(gap, torch.nan))
    torch.testing.assert_close(traj.guidance_gap, torch.stack(gaps), equal_nan=True)
    assert traj.guidance_gap.isnan().any(1).tolist() == [not 0.3 <= i / 6 <= 0.8 for i in range(6)]
    # The share: the same quadrature along the guided path, of both velocities, summed independently.
    share, calls = torch.zeros(5).double(), []

    def spied(x, t, y=None):
        calls.append((x, t))
        return silent(x, t, y)

    integrate(spied, x0, schedule, labels=LABELS)
    weights = [(step.dt * b, step) for step in schedule.plan() for b in step.tableau.b]
    for (weight, _), (x, t) in zip(weights, calls, strict=True):
        guided, conditional = silent(x, t, LABELS), net(x, t, LABELS)
        share += weight * (guided.square().sum(1) - conditional.square().sum(1)) / 2
    torch.testing.assert_close(traj.guidance_energy, share, rtol=1e-10, atol=1e-12)
    assert (share.abs() > 1e-3).all()


def test_recorded_rows_are_cut_and_moved_with_the_samples():
    field = Guided(Labelled(), 2.0, record=True)
    schedules = {"base": Schedule(steps=4), "kts": Schedule(KTS(0.1, 0.02), steps=4)}
    for merge_rows in (0, 1000):
        many = integrate_many(field, start(), schedules, labels=LABELS, merge_rows=merge_rows)
        for name, schedule in schedules.items():
            alone = integrate(field, start(), schedule, labels=LABELS)
            torch.testing.assert_close(many[name].guidance_energy, alone.guidance_energy)
            torch.testing.assert_close(many[name].guidance_gap, alone.guidance_gap)
    part = many["kts"][1:3].to(torch.float32)
    assert torch.equal(part.guidance_energy, many["kts"].guidance_energy[1:3].float())
    assert torch.equal(part.guidance_gap, many["kts"].guidance_gap[:, 1:3].float())
    assert part.guidance_gap.dtype == torch.float32


def test_without_guidance_the_share_is_zero_and_the_gap_unknown():
    traj = integrate(Guided(Labelled(), 1.0, record=True), start(), Schedule(steps=3), labels=LABELS)
    assert (traj.guidance_energy == 0).all()
    assert traj.guidance_gap.isnan().all()
    assert traj.nfe == 3


def test_recording_is_refused_where_there_are_no_steps_to_record():
    with pytest.raises(UserError, match="no fixed steps, which a velocity that records its guidance needs"):
        integrate(Guided(Labelled(), 2.0, record=True), start(), Schedule(steps=3, solver="dopri5"), labels=LABELS)


# ---------------------------------------------------------------- shapes


shapes = st.sampled_from([(1, 1), (5, 2), (5, 1), (3, 4, 2), (2, 2, 2)])


@settings(max_examples=60, deadline=None)
@given(x=shapes, v=shapes, solver=st.sampled_from([*STAGES, "dopri5"]))
def test_a_velocity_of_another_shape_is_refused_even_where_it_would_broadcast(x, v, solver):
    calls = []

    def velocity(state, t, y=None):
        calls.append(1)
        return torch.ones(v).to(state.dtype)

    x0 = start(x)
    if x == v:
        integrate(velocity, x0, Schedule(steps=2, solver=solver))
        return
    with pytest.raises(UserError) as caught:
        integrate(velocity, x0, Schedule(steps=2, solver=solver))
    assert len(calls) == 1, "at the first evaluation"
    assert f"shape {list(v)}" in str(caught.value)
    assert f"shape {list(x)}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_velocity_that_returns_no_tensor_is_refused():
    with pytest.raises(UserError, match="function returns a tuple for states"):
        integrate(lambda x, t, y=None: (x, t), start())


@pytest.mark.parametrize(
    ("velocity", "words"),
    [
        (lambda x, t: -x, "cannot be called as velocity(x, t, y): too many positional arguments"),
        (nn.Linear(3, 3), "Linear cannot be called as velocity(x, t, y)"),
        (lambda x, t, y, mask: -x, "missing a required argument: 'mask'"),
        ("model.pt", "A velocity is a function, not a str."),
        (None, "A velocity is a function, not a NoneType."),
    ],
)
def test_what_cannot_be_called_as_a_velocity_is_refused(velocity, words):
    with pytest.raises(UserError) as refused:
        integrate(velocity, torch.zeros(2, 3))
    assert words in str(refused.value)


def test_a_network_that_forgets_a_shape_is_named():
    class Narrow(nn.Module):
        def forward(self, x, t, y=None):
            return x[:, :1]

    with pytest.raises(UserError, match=r"Narrow returns a velocity of shape \[5, 1\] for states of shape \[5, 2\]"):
        integrate(Narrow(), start((5, 2)))


@pytest.mark.parametrize("solver", ["euler", "dopri5"])
@pytest.mark.parametrize("inference", [False, True])
def test_a_velocity_that_changes_its_input_is_refused(solver, inference):
    with torch.inference_mode(inference), pytest.raises(UserError, match="changes its input in place"):
        integrate(lambda x, t, y=None: x.mul_(0.5), start(), Schedule(steps=3, solver=solver))


@pytest.mark.parametrize(
    ("state", "velocity"),
    [
        (torch.float32, torch.float64),
        (torch.float32, torch.complex64),
        (torch.float32, torch.int64),
        (torch.bfloat16, torch.float32),
    ],
)
def test_a_velocity_of_wider_numbers_is_refused(state, velocity):
    with pytest.raises(UserError, match=f"function returns {velocity} for states of {state}"):
        integrate(lambda x, t, y=None: x.to(velocity), start().to(state), Schedule(steps=3))


def test_a_network_in_less_precision_keeps_the_state():
    path = integrate(lambda x, t, y=None: -x.bfloat16(), start().float(), Schedule(steps=3))
    assert path.x1.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": torch.zeros(5, 3).numpy()}, "not a ndarray"),
        ({"x0": torch.zeros(5, 3, dtype=torch.int64)}, "not .*torch.int64"),
        ({"x0": torch.zeros(5, 3, dtype=torch.uint8)}, "not .*torch.uint8"),
        ({"x0": torch.zeros(5)}, r"shape \[5\]"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"5 samples do not go with labels of shape \[4\]"),
        ({"labels": torch.zeros(5, 1, dtype=torch.int64)}, r"labels of shape \[5, 1\]"),
        ({"seeds": torch.arange(1)}, r"5 samples do not go with seeds of shape \[1\]"),
    ],
)
def test_what_cannot_be_a_start_is_refused_before_any_work(change, message):
    def velocity(x, t, y=None):
        raise AssertionError("evaluated")

    given_ = {"x0": start(), **change}
    with pytest.raises(UserError, match=message) as caught:
        integrate(velocity, **given_)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- networks in training mode


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, x, t, y=None):
        return self.drop(self.norm(x)) + self.frozen(x)


def test_a_network_is_evaluated_in_evaluation_mode_and_left_as_it_was():
    net, x0 = Dropping(), start((6, 2), dtype=torch.float32)
    for velocity in (net, net.forward):
        net.train()
        net.frozen.eval()
        path = integrate(velocity, x0, Schedule(steps=3))
        many = integrate_many(velocity, x0, {"a": Schedule(steps=3)})["a"]
        density = log_likelihood(velocity, x0, Schedule(steps=3))
        assert [module.training for module in net.modules()] == [True, True, True, False]
        assert net.norm.num_batches_tracked == 0
        for found in (path.x1, many.x1, density.x1):
            torch.testing.assert_close(found, x0 * (1 + (1 + 1e-5) ** -0.5 / 3 + 1 / 3) ** 3)


def test_a_network_that_fails_is_left_as_it_was():
    net = Dropping()
    with pytest.raises(RuntimeError):
        integrate(net, start((6, 3), dtype=torch.float32), Schedule(steps=3))
    assert net.training
    assert not net.frozen.training
