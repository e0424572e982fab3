"""Families of kept weights: the right network at each dose, sampled from the table's own seeds."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from fm_lightning import Evaluation, Schedule, UserError, integrate, load_network
from fm_lightning.comparison.calibrate import candidates
from fm_lightning.comparison.families import AVERAGE, EARLIER_CHECKPOINT, Family, families
from fm_lightning.comparison.model_families import model_families
from fm_lightning.comparison.rows import Row, StoredVelocity, schedule_rows
from fm_lightning.data import Toy2D
from fm_lightning.flow import KTS
from fm_lightning.nets import ResidualMLP
from fm_lightning.noise import noise

KEEP = [
    "--trainer.callbacks+=fm_lightning.callbacks.CheckpointSeries",
    "--trainer.callbacks+=fm_lightning.callbacks.PowerAverages",
]
ASK = ["--trainer.callbacks.ScheduleTable.families", '[cheap, "earlier checkpoint", average]']


def judged(c):
    """A schedule of which calibration does not exclude that it lowers copies, counted generously."""
    c["model"]["test_schedules"]["noisy"] = {"steps": 4, "end_noise": 0.1}
    c["model"]["judge"] = ["noisy"]
    c["trainer"]["max_steps"] = 40
    c["data"]["init_args"]["eval_batch_size"] = 500
    c["trainer"]["callbacks"][2]["init_args"] = {"threshold": 0.8}


def test_rows_are_those_networks_from_the_same_noise(command, tmp_path):
    ended = command("run", "-c", tiny_config(tmp_path / "kept.yaml", judged), *KEEP, *ASK)
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


def test_what_was_not_kept_is_said(command, tmp_path):
    ended = command("run", "-c", "tiny.yaml", "--data.init_args.eval_batch_size", 500, *ASK)
    assert ended.status == 0, ended
    assert "Not tested: earlier checkpoint, because training kept no earlier checkpoints" in ended.out
    assert "Not tested: average, because training kept no averages" in ended.out
    assert set(Evaluation.open(tmp_path / "runs/tiny").manifest.about["untested"]) == {EARLIER_CHECKPOINT, AVERAGE}


def test_families_are_asked_for_by_name():
    rows = schedule_rows({"base": Schedule(), "kts": Schedule(KTS())})
    some = candidates(rows, ["kts"], ["cheap", "constant gain", AVERAGE])
    names = [family.name for family in some[0].families]
    assert names == [family.name for family in families(Schedule()) if family.cheap] + ["constant gain"]


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (["brake"], "no family 'brake'. Use 'late brake', or one of cheap, noise"),
        (["nois"], "no family 'nois'. Use 'noise'"),
        (["zzz"], "no family 'zzz'. Choose one of cheap, noise"),
        (["noise", "noise"], "'noise' is named twice"),
        (["cheap", Family("noise", lambda base, dose: base, (0.1, 0.2, 0.3))], "'noise' is named twice"),
        (["less guidance"], "needs guidance to weaken and a null label"),
    ],
)
def test_names_of_families_that_are_refused(which, words):
    rows = schedule_rows({"base": Schedule(), "kts": Schedule(KTS())})
    with pytest.raises(UserError, match=re.escape(words)):
        candidates(rows, ["kts"], which)


def test_a_family_may_be_among_the_cheap_ones_and_named():
    rows = schedule_rows({"base": Schedule(), "kts": Schedule(KTS())})
    names = [family.name for family in candidates(rows, ["kts"], ["cheap", "noise"])[0].families]
    assert names == [family.name for family in families(Schedule()) if family.cheap]


def loaded():
    data = Toy2D(n=24)
    data.prepare()
    return data


def test_nothing_kept_has_reasons(tmp_path):
    found = model_families(tmp_path, 100, ResidualMLP([2], width=8, depth=1), loaded())
    assert not found.families
    assert set(found.missing) == {EARLIER_CHECKPOINT, AVERAGE}


def test_a_stored_velocity_is_loaded_once_per_batch():
    from fm_lightning.comparison.sampling import sample

    loads = []

    def load(device):
        loads.append(1)
        return lambda x, t, y=None: -x

    stored = StoredVelocity("a", load)
    rows = {name: Row("family", Schedule(steps=n), velocity=stored, content="a") for name, n in (("p", 2), ("q", 3))}
    sampled = sample(rows, lambda x, t, y=None: x, torch.ones(4, 2), None, torch.arange(4), 0, 4)
    assert len(loads) == 1
    assert (sampled["p"].x1 < 1).all()
