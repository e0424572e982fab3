"""Where the host waits for a GPU: never in a step, once for a batch, never in an update of energies or features."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from waiting import waits

from fm_lightning.callbacks import SampleGrid, ScheduleTable
from fm_lightning.comparison.rows import Row
from fm_lightning.comparison.sampling import sample
from fm_lightning.flow import KTS, Schedule, integrate, integrate_many
from fm_lightning.metrics import FrechetDistance, GaussianReference, KineticPathEnergy, RawFeatures
from fm_lightning.nets import Guided, Velocity
from fm_lightning.noise import noise


def velocity(x, t, y=None):
    return torch.tanh(x) * t[:, None] + (0 if y is None else y[:, None])


def schedules(steps, solver):
    shaped = Schedule(KTS(), steps=steps, solver=solver)
    return {
        "base": Schedule(steps=steps, solver=solver),
        "kts": shaped,
        "told": Schedule(KTS(), steps=steps, told_time="displacement"),
    }


ONCE = {"_local_scalar_dense": 1}  # the question whether everything is finite, of all schedules together


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("merge_rows", [0, 100])
def test_sampling_waits_once_whatever_the_steps(steps, solver, merge_rows):
    with waits() as found:
        x0, labels = torch.randn(5, 4, device="cuda"), torch.zeros(5, dtype=torch.int64, device="cuda")
        asked = []
        integrate_many(
            velocity, x0, schedules(steps, solver), labels=labels, seeds=torch.arange(5), merge_rows=merge_rows
        )
        assert found == ONCE
        found.clear()
        integrate(velocity, x0, Schedule(KTS(), steps, solver), probe=lambda i, *_: asked.append(dict(found)))
        assert asked == [{}] * steps
        assert found == ONCE


class Labelled(Velocity):
    null_label = 9

    def forward(self, x, t, y=None):
        return velocity(x, t, y)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("merge_rows", [0, 100])
@pytest.mark.parametrize(("interval", "nfe"), [((0.3, 1.0), 40), ((0.3, 0.8), 20)])
def test_guidance_in_an_interval_waits_for_nothing_more(record, merge_rows, interval, nfe):
    """Read from fake tensors, every time is 1: inside the first interval, outside the second."""
    with waits() as found:
        x0, labels = torch.randn(5, 4, device="cuda"), torch.zeros(5, dtype=torch.int64, device="cuda")
        field = Guided(Labelled(), 2.0, channels=3, interval=interval, record=record)
        many = integrate_many(field, x0, schedules(10, "heun"), labels=labels, merge_rows=merge_rows)
        assert found == ONCE
        assert many["base"].nfe == nfe
        assert (many["base"].guidance_gap is not None) == record


def test_noise_at_the_end_and_floors_wait_for_nothing_more():
    rows = {name: Row("schedule", s) for name, s in schedules(3, "euler").items()}
    with waits() as found:
        x0, real = torch.randn(5, 4, device="cuda"), torch.ones(7, 4, device="cuda")
        rows["noise"] = Row("control", Schedule(steps=3, end_noise=(0.1, 0.2)))
        rows["held_out"], rows["copies"] = (Row("floor", Schedule(), images=x) for x in (real, torch.ones(7, 4)))
        batch = sample(rows, velocity, x0, None, torch.arange(5), 0, 4)
        assert found == ONCE
        assert all(t.x1.is_cuda and len(t) == 4 for t in batch.values())


METRICS = {
    "energy": KineticPathEnergy,
    "frechet": lambda: FrechetDistance(RawFeatures(), GaussianReference(torch.zeros(4), torch.eye(4), samples=10)),
}


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("seeded", [True, False])
def test_updates_do_not_wait(kind, seeded):
    metric = METRICS[kind]()  # a reference is looked at once, on the host
    with waits() as found:
        trajectory = integrate(
            velocity, torch.randn(5, 4, device="cuda"), Schedule(KTS(), 3), seeds=torch.arange(5) if seeded else None
        )
        metric = metric.to("cuda")
        for part in (trajectory, trajectory, trajectory[:0]):
            found.clear()
            metric.update(part)
            assert not found


def test_callbacks_that_measure_every_batch_do_not_wait():
    module = SimpleNamespace(
        rows={n: Row("schedule", s) for n, s in schedules(3, "euler").items()}, device=torch.device("cpu")
    )
    table, grid = ScheduleTable(), SampleGrid(count=5)
    table.begin(None, module)
    grid.begin(None, module)
    with waits() as found:
        table._squares = {name: metric.to("cuda") for name, metric in table._squares.items()}
        for batch in range(3):
            trajectories = integrate_many(velocity, torch.randn(5, 4, device="cuda"), schedules(3, "euler"))
            found.clear()
            table.update(None, module, trajectories)
            assert not found
            grid.update(None, module, trajectories)
            assert found == ({"copy to cpu": 3} if batch == 0 else {}), "the grid's images, from the first batch alone"


def test_waits_are_seen():
    """So that the tests above can fail."""
    with waits() as found:
        x = torch.randn(3, device="cuda")
        x.cpu(), torch.ones(3).to("cuda"), x.new_tensor([1.0]), torch.zeros(3).copy_(x)
        assert found == {"copy to cpu": 2, "copy to cuda": 2}
        found.clear()
        torch.ones(3).to("cuda", non_blocking=True), x.double(), x + 1
        assert not found
        bool((x > 0).all()), x[0].item()
        assert found == {"_local_scalar_dense": 2}
        found.clear()
        with pytest.raises(RuntimeError):
            x[x > 0]  # fake tensors cannot know its shape
        assert found == {"index by a mask": 1}
        with pytest.raises(RuntimeError):
            x.nonzero()
        assert found["nonzero"] == 1


def test_noise_asks_for_all_seeds_at_once(monkeypatch):
    seeds = torch.arange(5)
    asked = []
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: asked.append(1))
    assert noise(seeds, (2,), 0).shape == (5, 2)
    assert not asked
