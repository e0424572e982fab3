"""Many schedules at once: the same trajectories as separate runs, for fewer network evaluations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, Constant, Schedule, integrate, integrate_many

TENSORS = ["x1", "energy", "field_energy", "displacement", "times", "gain"]


def start(shape=(4, 3), seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


class Counting:
    """An elementwise field (rows do not know each other) that counts calls and rows."""

    def __init__(self):
        self.calls, self.rows = 0, 0

    def __call__(self, x, t, y=None):
        assert t.shape == (x.shape[0],)
        assert y is None or y.shape == (x.shape[0],)
        self.calls += 1
        self.rows += x.shape[0]
        t = t.reshape(-1, *[1] * (x.dim() - 1)).to(x)
        v = (0.5 - t) * x * x * 0.1 - 0.6 * x + t
        return v if y is None else v + y.reshape(t.shape).to(x)


def distinct_evaluations(schedules):
    """Evaluations a sample needs when beginnings are shared, counted from the plans alone.

    A state is known by its start and the steps that led to it. A step's first stage is asked once a state and told time,
    by all steps that leave from there; its other stages, and all after noise put in, once a step.
    """
    asked = set()
    for schedule in schedules.values():
        way = (schedule.x0_scale,)
        for step in schedule.plan():
            for stage, told in enumerate(step.told):
                asked.add((way, stage, told if stage == 0 and not step.noise else step))
            way = (*way, step)
    return len(asked)


def compare(many, schedules, x0, *, exact=True, velocity=None, **kwargs):
    assert list(many) == list(schedules)
    for name, schedule in schedules.items():
        alone_net = Counting()
        alone = integrate(velocity or alone_net, x0, schedule, **kwargs)
        got = many[name]
        for field in TENSORS:
            a, b = getattr(got, field), getattr(alone, field)
            assert a.shape == b.shape, (name, field)
            assert a.dtype == b.dtype, (name, field)
            if exact:
                assert torch.equal(a, b), (name, field, float((a - b).abs().max()))
            else:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=f"{name} {field}")
        assert got.nfe == alone.nfe, name
        for field in ("labels", "seeds"):
            a, b = getattr(got, field), getattr(alone, field)
            assert (a is None and b is None) or torch.equal(a, b)


gains = st.one_of(
    st.none(),
    st.builds(
        KTS,
        alpha=st.sampled_from([0.0, 0.1, 0.5]),
        beta=st.sampled_from([0.0, 0.01, 0.04]),
        tau_split=st.sampled_from([0.3, 0.5, 0.6]),
        launch=st.sampled_from(["linear", "constant", "exponential"]),
        landing=st.sampled_from(["exponential", "linear", "constant"]),
    ),
    st.builds(SSC, st.sampled_from([0.0, 0.05, 0.4]), st.sampled_from([1.0, 2.0])),
    st.builds(Constant, st.sampled_from([1.0, 0.9])),
)
schedule = st.builds(
    Schedule,
    gain=gains,
    steps=st.sampled_from([1, 2, 5, 8, 10]),
    solver=st.sampled_from(["euler", "euler", "midpoint", "heun", "rk4"]),
    grid=st.sampled_from(["uniform", "uniform", "cosine"]),
    t_end=st.sampled_from([1.0, 1.0, 1.0, 0.8]),
    told_time=st.sampled_from(["grid", "grid", "displacement", "floor999"]),
    x0_scale=st.sampled_from([1.0, 1.0, 1.0, 0.9]),
    end_noise=st.sampled_from([0.0, 0.0, 0.0, 0.1]),
    inject_noise=st.sampled_from([None, None, (0.0, 0.2), (0.6, 0.1), (0.75, 0.1)]),
    blend=st.sampled_from([0.0, 0.0, 0.1]),
)


@settings(max_examples=120, deadline=None)
@given(
    chosen=st.lists(schedule, min_size=1, max_size=7),
    shape=st.sampled_from([(1, 1), (1, 5), (3, 2), (2, 3, 5, 7), (5, 13)]),
    labelled=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_random_sets_equal_separate_runs_to_the_last_bit(chosen, shape, labelled, dtype):
    schedules = {f"s{i}": s for i, s in enumerate(chosen)}
    x0 = start(shape, dtype=dtype)
    extra = {"seeds": torch.arange(shape[0]) + 40}
    if labelled:
        extra["labels"] = torch.arange(shape[0]) % 3
    net = Counting()
    many = integrate_many(net, x0, schedules, **extra)
    compare(many, schedules, x0, **extra)
    assert net.rows == distinct_evaluations(schedules) * shape[0]
    assert torch.equal(x0, start(shape, dtype=dtype))


def test_one_dopri5_among_others():
    schedules = {
        "base": Schedule(steps=10),
        "adaptive": Schedule(steps=10, solver="dopri5"),
        "shaped": Schedule(KTS(0.2, 0.02), steps=10, solver="dopri5"),
        "kts": Schedule(KTS(0.0, 0.02), steps=10),
    }
    x0 = start()
    compare(integrate_many(Counting(), x0, schedules), schedules, x0)


# ---------------------------------------------------------------- savings


def rows_per_sample(schedules, x0=None):
    x0 = start() if x0 is None else x0
    net = Counting()
    many = integrate_many(net, x0, schedules)
    separate = sum(t.nfe for t in many.values())
    assert net.rows % len(x0) == 0
    return net.rows // len(x0), separate, many


@pytest.mark.parametrize("batch", [1, 4])
def test_a_five_by_five_grid_of_kts_costs_half(batch):
    """Euler 100, tau 0.6: step 0 is one evaluation for all; steps 1 to 60 one per alpha; the gain at tau is 1
    for every beta, so that step 61 still starts from one state per alpha; steps 62 to 99 one each:
    1 + 61 * 5 + 38 * 25 = 1256 of 2500."""
    levels = [0.005, 0.01, 0.02, 0.03, 0.04]
    schedules = {f"{a}/{b}": Schedule(KTS(a, b)) for a, b in itertools.product(levels, levels)}
    used, separate, many = rows_per_sample(schedules, start((batch, 3)))
    assert (used, separate) == (1256, 2500)
    assert all(t.nfe == 100 for t in many.values())
    compare(many, {k: schedules[k] for k in many}, start((batch, 3)))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_equal_schedules_cost_one(solver):
    schedules = {
        "plain": Schedule(steps=9, solver=solver),
        "again": Schedule(steps=9, solver=solver),
        "gain one": Schedule(Constant(1.0), steps=9, solver=solver),
        "kts nothing": Schedule(KTS(0.0, 0.0), steps=9, solver=solver),
        "noisy": Schedule(steps=9, solver=solver, end_noise=0.1),
    }
    net, x0 = Counting(), start()
    many = integrate_many(net, x0, schedules, seeds=torch.arange(4))
    assert net.rows == 4 * many["plain"].nfe
    assert len({t.nfe for t in many.values()}) == 1
    compare(many, schedules, x0, seeds=torch.arange(4))


def test_landings_share_the_launch_and_the_first_evaluation_after_the_fork():
    schedules = {str(b): Schedule(KTS(0.1, b), steps=10) for b in (0.01, 0.02, 0.03)}
    # Edges 0 .. 0.6 have one gain for all: 7 evaluations; at 0.7 the state is common too: 8; then 2 alone.
    used, separate, _ = rows_per_sample(schedules)
    assert (used, separate) == (8 + 2 * 3, 30)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_a_shorter_grid_of_the_same_edges_is_a_prefix(solver):
    grid = torch.arange(11, dtype=torch.float64) / 10
    schedules = {
        "half": Schedule(grid=grid[:6], solver=solver),
        "all": Schedule(steps=10, grid=grid, solver=solver),
        "named": Schedule(steps=10, solver=solver),
        "one step": Schedule(grid=grid[:2], solver=solver),
    }
    used, separate, many = rows_per_sample(schedules)
    stages = many["one step"].nfe
    assert (used, separate) == (10 * stages, 26 * stages)
    compare(many, schedules, start())


def test_what_differs_at_the_start_shares_nothing():
    schedules = {
        "base": Schedule(steps=5),
        "scaled": Schedule(steps=5, x0_scale=0.5),
    }
    used, separate, _ = rows_per_sample(schedules)
    assert used == separate == 10


def test_a_different_told_time_parts_when_it_differs():
    """displacement and grid agree while the gain is 1: with alpha = 0 they part behind the first step that it shortens,
    the one from t = 0.75; eighths are exact, so that the sum of eta dt is the grid until then."""
    schedules = {
        "grid": Schedule(KTS(0.0, 0.04), steps=8),
        "displacement": Schedule(KTS(0.0, 0.04), steps=8, told_time="displacement"),
    }
    x0 = start()
    used, separate, many = rows_per_sample(schedules, x0)
    compare(many, schedules, x0)
    steps = [torch.diff(torch.stack([many[n].energy for n in schedules]), dim=0)[0].abs().amax(1)]
    parted = int((steps[0] > 0).nonzero()[0])
    assert (parted, used, separate) == (6, 6 + 2 * 2, 16)
    assert not torch.equal(many["grid"].x1, many["displacement"].x1)


def test_one_schedule_is_integrate():
    net, x0 = Counting(), start()
    many = integrate_many(net, x0, {"only": Schedule(KTS(), steps=7, solver="heun")})
    assert net.rows == 14 * 4
    compare(many, {"only": Schedule(KTS(), steps=7, solver="heun")}, x0)


def test_no_schedules_is_no_work():
    net = Counting()
    assert integrate_many(net, start(), {}) == {}
    assert net.calls == 0


# ---------------------------------------------------------------- a network whose rows differ with the batch


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_real_network_agrees_to_rounding(batch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(9, 64), torch.nn.SiLU(), torch.nn.Linear(64, 8))

    def velocity(x, t, y=None):
        return net(torch.cat([x, t[:, None]], 1))

    schedules = {
        "base": Schedule(steps=20),
        **{f"b{b}": Schedule(KTS(0.05, b), steps=20) for b in (0.01, 0.02)},
        **{f"a{a}": Schedule(KTS(a, 0.02), steps=20) for a in (0.1, 0.2)},
        "heun": Schedule(KTS(0.05, 0.01), steps=20, solver="heun"),
        "cosine": Schedule(steps=20, grid="cosine"),
    }
    x0 = start((batch, 8), dtype=torch.float32)
    many = integrate_many(velocity, x0, schedules)
    compare(many, schedules, x0, exact=False, velocity=velocity)


def test_bad_schedules_are_refused_before_any_work():
    net = Counting()
    with pytest.raises(UserError) as caught:
        integrate_many(net, start(), {"good": Schedule(steps=5), "too far": Schedule(KTS(0.0, 0.2), steps=50)})
    assert net.calls == 0
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("merge_rows", [1, 7, 14, 20, 1000])
def test_merged_batches_agree_and_stay_within_their_rows(solver, merge_rows):
    net = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    rows = []

    def velocity(x, t, y=None):
        rows.append(len(x))
        return net(torch.cat([x, t[:, None] + y[:, None]], 1))

    x0, labels = torch.randn(7, 4), torch.arange(7) % 3
    schedules = {
        f"{a}": Schedule(KTS(a, b), steps=9, solver=solver) for a, b in [(0.0, 0.01), (0.01, 0.01), (0.3, 0.02)]
    }
    merged = integrate_many(velocity, x0, schedules, labels=labels, merge_rows=merge_rows)
    assert max(rows) <= max(7, merge_rows)
    assert merge_rows < 14 or max(rows) >= 14, "something was merged"
    for name, schedule in schedules.items():
        alone = integrate(velocity, x0, schedule, labels=labels)
        torch.testing.assert_close(merged[name].x1, alone.x1, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged[name].energy, alone.energy, rtol=1e-5, atol=1e-6)
        assert merged[name].nfe == alone.nfe
