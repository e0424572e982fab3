"""Guidance is what rows differ in: one table holds several, the families weaken it, and without a null label it is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning import KTS, Schedule, UserError, compare_schedules, integrate
from fm_lightning.comparison.calibrate import candidates
from fm_lightning.comparison.families import LESS_GUIDANCE, MORE_GUIDANCE, families
from fm_lightning.comparison.model_families import NO_FURTHER
from fm_lightning.comparison.rows import schedule_rows
from fm_lightning.flow import Guidance
from fm_lightning.nets import Guided, ResidualMLP
from fm_lightning.noise import noise

POINTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 3
DATA = {"train": POINTS[:20], "real": POINTS[20:40], "held_out": POINTS[40:], "labels": LABELS}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualMLP([2], width=16, depth=1, num_classes=3, null_class=True)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return net.eval()


def compared(folder, velocity, schedules, **options):
    options = {"seeds": 21, "batch_size": 8, "features": None, "families": "none", "folder": folder, **options}
    return compare_schedules(velocity, schedules, **DATA, **options)


@pytest.mark.parametrize("merged", [False, True])
def test_rows_with_other_guidance_share_one_table(tmp_path, merged, capsys):
    net = network()
    weak = {"base": Schedule(steps=5), "weak": Schedule(steps=5, guidance=Guidance(1.5, channels=1))}
    late = {"late": Schedule(steps=5, guidance=Guidance(3.0, interval=(0.5, 1.0)))}
    if not merged:
        compared(tmp_path, net, weak)
    table = compared(tmp_path, net, weak | late).table
    for name, schedule in (weak | late).items():
        lines = table.lines(name)
        x0 = noise(lines.seed.tolist(), (2,), 0)
        labels = torch.tensor(lines.label.to_numpy().copy(), dtype=torch.int64)
        alone = integrate(net, x0, schedule, labels=labels)
        np.testing.assert_allclose(lines.kpe.to_numpy(), alone.kpe.numpy(), rtol=1e-5)
    assert table.nfe("base") == 5
    assert table.nfe("late") == 5 + 2
    assert "for t in [0.5, 1]" in table.rows["late"]["description"]
    # A guided network is the same network: its guidance is that of the schedules without their own.
    capsys.readouterr()
    found = compared(tmp_path, Guided(net, 3.0, interval=(0.5, 1.0)), {"base": Schedule(steps=5), "weak": weak["weak"]})
    assert "there already" in capsys.readouterr().out
    np.testing.assert_array_equal(found.table.lines("base").kpe, table.lines("late").kpe)


def test_doses_weaken_the_guidance_of_the_base():
    base = Schedule(guidance=Guidance(2.0, channels=1, interval=(0.1, 0.9)))
    made = [LESS_GUIDANCE.at(base, dose).guidance for dose in LESS_GUIDANCE.doses]
    np.testing.assert_allclose([g.scale for g in made], [1.7, 1.4, 1.1, 0.8, 0.5])
    assert {(g.channels, g.interval) for g in made} == {(1, (0.1, 0.9))}
    assert LESS_GUIDANCE.at(Schedule(), 1.0).guidance == Guidance(0.5)
    assert MORE_GUIDANCE.at(base, 0.5).guidance.scale == 2.5
    assert LESS_GUIDANCE not in families(Schedule(guidance=Guidance(0.5)), guidable=True)
    assert not {LESS_GUIDANCE, MORE_GUIDANCE} & set(families(base))


def test_more_guidance_explains_no_fall():
    rows = schedule_rows({"base": Schedule(), "kts": Schedule(KTS())})
    further = NO_FURTHER._replace(guidable=True)
    (found,) = candidates(rows, ["kts"], "all", further)
    assert LESS_GUIDANCE in found.families
    assert MORE_GUIDANCE not in found.families
    with pytest.raises(UserError, match="only raises copies"):
        candidates(rows, ["kts"], ["more guidance"], further)


def test_the_family_is_sampled(tmp_path):
    schedules = {"base": Schedule(steps=4, guidance=Guidance(2.0)), "noisy": Schedule(steps=4, end_noise=0.3)}
    schedules["noisy"] = Schedule(steps=4, end_noise=0.3, guidance=Guidance(2.0))
    options = {"judge": ["noisy"], "families": ["less guidance"], "threshold": 0.9, "batch_size": 100}
    table = compared(tmp_path, network(), schedules, **options).table
    scales = {d["schedule"]["guidance"]["scale"] for d in table.manifest.definitions.values() if d["schedule"]}
    assert len(scales) >= 3


def test_without_a_null_label_it_is_refused_before_sampling(tmp_path):
    with pytest.raises(
        UserError, match=r"The schedule mine has guidance 2, and ResidualMLP has no null label\. Remove"
    ):
        compare_schedules(
            ResidualMLP([2], width=8, depth=1, num_classes=3),
            {"mine": Schedule(steps=2, guidance=Guidance(2.0))},
            **DATA,
            folder=tmp_path,
        )
    assert not list(tmp_path.iterdir())
