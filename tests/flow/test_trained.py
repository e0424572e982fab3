"""Sampling begins at the largest noise level that a network was trained on, unless the schedule says where."""

from __future__ import annotations

import pytest
import torch

from fm_lightning import KTS, compare_schedules
from fm_lightning.comparison.families import EARLY_STOP
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate, integrate_many, log_likelihood
from fm_lightning.flow.trained import begin_where_trained, trained_range, where_trained
from fm_lightning.nets import Velocity


class Partly(Velocity):
    """A velocity of which nothing is known outside [0.2, 0.9]."""

    trained_on = (0.2, 0.9)

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x, t, y=None):
        self.told.append(float(t[0]))
        return -x


def plain(x, t, y=None):
    return -x


X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))


def test_a_velocity_trained_everywhere_keeps_its_schedule():
    for schedule in (Schedule(), Schedule(t_start=0.3), Schedule(grid=[0.0, 0.5, 1.0])):
        assert begin_where_trained(schedule, plain) is schedule
        assert begin_where_trained(schedule, Velocity()) is schedule
    assert trained_range(plain) == (0.0, 1.0)


@pytest.mark.parametrize("solver", ["euler", "heun", "dopri5"])
def test_sampling_begins_where_the_training_did(solver):
    net = Partly()
    found = integrate(net, X, Schedule(steps=4, solver=solver))
    assert found.times[0] == 0.2
    assert min(net.told) >= 0.2 - 1e-7
    same = integrate(plain, X, Schedule(steps=4, solver=solver, t_start=0.2))
    assert torch.equal(found.x1, same.x1)
    assert torch.equal(found.energy, same.energy)


def test_a_turned_clock_turns_the_range():
    from fm_lightning.adapters import Reversed

    assert trained_range(Reversed(Partly())) == pytest.approx((0.1, 0.8))
    assert trained_range(Reversed(Velocity())) == (0.0, 1.0)


def test_every_way_to_sample_does():
    schedules = {"a": Schedule(steps=3), "b": Schedule(KTS(0.1, 0.1), steps=3), "own": Schedule(steps=3, t_start=0.4)}
    starts = [float(t.times[0]) for t in integrate_many(Partly(), X, schedules).values()]
    assert starts == [0.2, 0.2, 0.4]
    x = X.requires_grad_(False)

    class Smooth(Partly):
        def forward(self, x, t, y=None):
            return -x * 1.0

    assert float(log_likelihood(Smooth(), x, Schedule(steps=3)).times[0]) == 0.2


def test_levels_in_float32_are_not_below_the_training():
    net = Partly()
    assert begin_where_trained(Schedule(grid=[0.2 - 1e-8, 1.0]), net).t_start == 0.2 - 1e-8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"t_start": 0.1},
            r"Sampling begins at t = 0.1, and the network was trained only for t >= 0.2\. .* at least 0.2",
        ),
        ({"grid": [0.0, 0.5, 1.0]}, r"The grid begins at t = 0, "),
        ({"t_end": 0.15}, r"t_end=0.15 is before t = 0.2"),
    ],
)
def test_more_noise_than_was_trained_is_refused(options, message):
    net = Partly()
    for sample in (integrate, log_likelihood):
        with pytest.raises(UserError, match=message):
            sample(net, X, Schedule(**options))
    with pytest.raises(UserError, match=f"Schedule odd: {message}"):
        where_trained({"odd": Schedule(**options)}, net)
    assert not net.told


def test_an_end_with_less_noise_than_was_trained_is_refused():
    with pytest.raises(
        UserError, match=r"Schedule s ends at t = 0.95, and the network was trained only for t <= 0.9\."
    ):
        where_trained({"s": Schedule(t_end=0.95)}, Partly())
    assert where_trained({"s": Schedule(t_end=0.9)}, Partly())["s"].t_start == 0.2
    # A trivial manipulation may stop there: its network is told the nearest level.
    end = integrate(Partly(), X, EARLY_STOP.at(Schedule(steps=4, t_start=0.2), 0.05)).times[-1]
    assert float(end) == pytest.approx(0.2 + 0.95 * 0.8), "a dose is a share of the time that is sampled"


def test_a_comparison_says_where_it_begins(capsys):
    points = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    options = {"train": points[:20], "real": points[20:], "seeds": 30, "families": "none"}
    kts = Schedule(KTS(0.02, 0.02), steps=4)
    for schedules in ({"kts": kts}, {"base": Schedule(steps=4), "kts": kts}):
        found = compare_schedules(Partly(), schedules, **options)
        assert "Sampling begins at t = 0.2, the largest noise level" in capsys.readouterr().out
        labels = {row.name: row.label for row in found.results.rows}
        assert labels["base"] == "plain, 4 euler steps, from t = 0.2"
        assert labels["kts"].endswith("from t = 0.2")
    later = Schedule(steps=4, t_start=0.3)
    found = compare_schedules(Partly(), {"base": later}, **options)
    assert found.results.row("base").label.endswith("from t = 0.3")
    assert "begins" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"The field other was trained only for t >= 0.2, and base begins at t = 0\."):
        compare_schedules(plain, {"base": Schedule(steps=4)}, fields={"other": Partly()}, **options)


def test_a_module_of_such_a_network_compares_from_there():
    from fm_lightning import FlowMatching

    plan = FlowMatching(Partly(), test_schedules={"kts": Schedule(KTS(0.02, 0.02))}).plan
    assert {row.schedule.t_start for row in (*plan.test.values(), *plan.validation.values())} == {0.2}
