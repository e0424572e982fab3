"""Guidance as a schedule's field: rows of one call differ in it and share what they have in common."""

from __future__ import annotations

import pytest
import torch
from fields import start
from torch import nn

from fm_lightning.errors import UserError
from fm_lightning.flow import Guidance, Schedule, integrate, integrate_many, log_likelihood
from fm_lightning.nets import Guided, ResidualMLP, Velocity
from fm_lightning.table.keys import definition

LABELS = torch.tensor([0, 2, 1, 0, 1])
GUIDANCES = {
    "none": None,
    "conditional": Guidance(),
    "two": Guidance(2.0),
    "late": Guidance(2.0, interval=(0.5, 1.0)),
    "middle": Guidance(2.0, interval=(0.5, 0.8)),
    "one channel": Guidance(3.0, channels=1),
    "unconditional": Guidance(0.0),
}


class Counting(Velocity):
    """A smooth field that depends on the class; counts rows."""

    num_classes, null_label = 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x, t, y=None):
        self.rows += len(x)
        return torch.sin(x + y[:, None]) * (2 - t[:, None])


def x0() -> torch.Tensor:
    return start((5, 2))


def guided(net: Velocity, guidance: Guidance | None) -> Velocity:
    if guidance is None:
        return net
    return Guided(net, guidance.scale, guidance.channels, guidance.interval, guidance.record)


@pytest.mark.parametrize("solver", ["euler", "heun", "dopri5"])
def test_each_row_is_what_its_guided_network_gives(solver):
    net = Counting()
    rows = {name: Schedule(steps=10, solver=solver, guidance=g) for name, g in GUIDANCES.items()}
    many = integrate_many(net, x0(), rows, labels=LABELS)
    for name, guidance in GUIDANCES.items():
        alone = integrate(guided(net, guidance), x0(), Schedule(steps=10, solver=solver), labels=LABELS)
        torch.testing.assert_close(many[name].x1, alone.x1, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(many[name].energy, alone.energy, rtol=1e-13, atol=1e-13)
        assert many[name].nfe == alone.nfe
    assert not torch.equal(many["two"].x1, many["one channel"].x1)


def test_beginnings_are_shared_where_guidance_agrees():
    net = Counting()
    rows = {name: Schedule(steps=10, guidance=GUIDANCES[name]) for name in ("none", "conditional", "late", "middle")}
    integrate_many(net, x0(), rows, labels=LABELS)
    # Steps 0 to 4 are common; none and conditional stay one; late and middle part after t = 0.8, where middle is conditional.
    assert net.rows == 5 * (5 + 5 + 2 * 4 + 2 + 1)


def test_a_schedules_guidance_replaces_the_velocitys_own():
    net = Counting()
    for guidance in (Guidance(), Guidance(0.5), Guidance(2.0, interval=(0.3, 0.6))):
        found = integrate(Guided(net, 3.0), x0(), Schedule(steps=10, guidance=guidance), labels=LABELS)
        wanted = integrate(guided(net, guidance), x0(), Schedule(steps=10), labels=LABELS)
        torch.testing.assert_close(found.x1, wanted.x1, rtol=1e-13, atol=1e-13)
        assert found.nfe == wanted.nfe


def test_rows_record_by_themselves():
    guidance = Guidance(2.0, interval=(0.2, 0.6), record=True)
    net = Counting()
    rows = {"kept": Schedule(steps=10, guidance=guidance), "plain": Schedule(steps=10)}
    many = integrate_many(net, x0(), rows, labels=LABELS)
    alone = integrate(guided(net, guidance), x0(), Schedule(steps=10), labels=LABELS)
    assert many["plain"].guidance_energy is None
    torch.testing.assert_close(many["kept"].guidance_energy, alone.guidance_energy)
    torch.testing.assert_close(many["kept"].guidance_gap, alone.guidance_gap, equal_nan=True)


def test_the_likelihood_is_the_guided_fields():
    net, guidance = Counting(), Guidance(2.0, interval=(0.3, 1.0))
    found = log_likelihood(net, x0(), Schedule(steps=6, guidance=guidance), labels=LABELS)
    wanted = log_likelihood(guided(net, guidance), x0(), Schedule(steps=6), labels=LABELS)
    torch.testing.assert_close(found.log_p, wanted.log_p)


def test_a_mlp_with_a_null_class():
    torch.manual_seed(0)
    net = ResidualMLP((2,), width=8, num_classes=3, null_class=True).double()
    assert net.null_label == 3
    assert net.label.num_embeddings == 4
    found = integrate(net, x0(), Schedule(steps=4, guidance=Guidance(2.0)), labels=LABELS)
    assert found.nfe == 8
    assert ResidualMLP((2,), width=8, num_classes=3).null_label is None
    with pytest.raises(UserError, match="null_class=True needs num_classes"):
        ResidualMLP((2,), null_class=True)


def test_keys_and_values():
    assert definition(Schedule(guidance=None)) == {"class": "Schedule"}
    assert Guidance(2.0, interval=[0, 1]) == Guidance(2.0)
    assert hash(Schedule(guidance=Guidance(2.0))) == hash(Schedule(guidance=Guidance(2.0)))


@pytest.mark.parametrize(
    ("velocity", "labels", "message"),
    [
        (lambda x, t, y=None: x, LABELS, "function has no null label, which guidance needs"),
        (nn.Linear(2, 2), LABELS, "Linear cannot be called as velocity"),
        (ResidualMLP((2,), width=8, num_classes=3), LABELS, "ResidualMLP has no null label"),
        (Counting(), None, "Guidance needs labels"),
    ],
)
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_what_cannot_be_guided(velocity, labels, message, solver):
    with pytest.raises(UserError, match=message):
        integrate(velocity, x0(), Schedule(steps=3, solver=solver, guidance=Guidance(2.0)), labels=labels)


def test_more_channels_than_there_are():
    with pytest.raises(UserError, match=r"channels=3 exceeds the 2 channels"):
        integrate(Counting(), x0(), Schedule(steps=3, guidance=Guidance(2.0, channels=3)), labels=LABELS)
