"""Families of kept weights: the right network at each dose, sampled from the table's own seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning import Evaluation, Schedule, UserError, integrate, load_network
from fm_lightning.comparison.calibrate import candidates
from fm_lightning.comparison.families import AVERAGE, EARLIER_CHECKPOINT, LESS_GUIDANCE, families, less_guidance
from fm_lightning.comparison.model_families import model_families
from fm_lightning.comparison.rows import Row, StoredVelocity, schedule_rows
from fm_lightning.flow import KTS
from fm_lightning.guidance import Guidance
from fm_lightning.nets import ResidualMLP
from fm_lightning.noise import noise

KEEP = [
    "--trainer.callbacks+=fm_lightning.callbacks.CheckpointSeries",
    "--trainer.callbacks+=fm_lightning.callbacks.PowerAverages",
]
ASK = ["--trainer.callbacks.ScheduleTable.families", '[cheap, "earlier checkpoint", average]']


def test_rows_are_those_networks_from_the_same_noise(command, tmp_path, undrawn):
    ended = command("run", "-c", "tiny.yaml", "--trainer.max_steps", 40, *KEEP, *ASK)
    assert ended.status == 0, ended
    table = Evaluation.open(tmp_path / "runs/tiny")
    parts = {key for part in table.parts for key in part.keys}
    assert {key for key, d in table.manifest.definitions.items() if str(d["content"]).startswith("checkpoint:")} & parts
    assert {key for key, d in table.manifest.definitions.items() if str(d["content"]).startswith("average:")} & parts
    files = sorted((tmp_path / "runs/tiny/checkpoints/earlier").glob("step-*.ckpt"))
    contents = {f"checkpoint:{torch.load(f, weights_only=True)['hash']}": f for f in files}
    checked = 0
    for part in table.parts:
        for key in part.keys:
            file = contents.get(table.manifest.definitions[key]["content"])
            if file is not None:
                lines = part.lines().to_pandas()
                lines = lines[lines.key == key]
                x0 = noise(lines.seed.tolist(), (2,), 0)
                there = integrate(load_network(file), x0, Schedule(steps=4))
                np.testing.assert_allclose(there.kpe.numpy(), lines.kpe.to_numpy(), rtol=1e-4, atol=1e-5)
                checked += 1
    assert checked >= 3


def test_what_was_not_kept_is_said(command, tmp_path, undrawn):
    ended = command("run", "-c", "tiny.yaml", *ASK)
    assert ended.status == 0, ended
    assert "Not tested: earlier checkpoint, because training kept no earlier checkpoints" in ended.out
    assert "Not tested: average, because training kept no averages" in ended.out
    assert set(Evaluation.open(tmp_path / "runs/tiny").manifest.about["untested"]) == {EARLIER_CHECKPOINT, AVERAGE}


def test_families_are_asked_for_by_name():
    rows = schedule_rows({"base": Schedule(), "kts": Schedule(KTS())})
    some = candidates(rows, ["kts"], ["cheap", "constant gain", AVERAGE])
    names = [family.name for family in some[0].families]
    assert names == [family.name for family in families(Schedule()) if family.cheap] + ["constant gain"]
    with pytest.raises(UserError, match="no family 'brake'"):
        candidates(rows, ["kts"], ["brake"])


def test_nothing_kept_has_reasons(tmp_path):
    found = model_families(tmp_path, 100, ResidualMLP([2], width=8, depth=1), Guidance())
    assert not found.families
    assert set(found.missing) == {EARLIER_CHECKPOINT, AVERAGE}


def test_a_stored_velocity_is_loaded_once_per_batch():
    from fm_lightning.comparison.sampling import sample

    loads = []

    def load():
        loads.append(1)
        return lambda x, t, y=None: -x

    stored = StoredVelocity("a", load)
    rows = {name: Row("family", Schedule(steps=n), velocity=stored, content="a") for name, n in (("p", 2), ("q", 3))}
    sampled = sample(rows, lambda x, t, y=None: x, torch.ones(4, 2), None, torch.arange(4), 0, 4)
    assert len(loads) == 1
    assert (sampled["p"].x1 < 1).all()


def test_less_guidance_ends_at_a_half():
    family = less_guidance(Guidance(2.0, interval=(0.1, 0.9)))
    scales = [family.at(Schedule(), dose).guidance.scale for dose in family.doses]
    np.testing.assert_allclose(scales, [1.7, 1.4, 1.1, 0.8, 0.5])
    assert family.at(Schedule(), 0.3).guidance.interval == (0.1, 0.9)
    assert family.at(Schedule(), 0) == Schedule()
    with pytest.raises(UserError, match="cannot be weakened"):
        less_guidance(Guidance(0.5))


def test_only_a_network_with_a_null_label_has_less_guidance(tmp_path):
    plain, conditional = (
        ResidualMLP([2], width=8, depth=1),
        ResidualMLP([2], width=8, depth=1, num_classes=3, null_class=True),
    )
    names = [[f.name for f in model_families(tmp_path, None, net, Guidance()).families] for net in (plain, conditional)]
    assert names == [[], [LESS_GUIDANCE]]
