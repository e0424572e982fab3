"""Rows sampled by an SDE: their energy is the velocity's, and what does not exist is missing everywhere, not NaN."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from fm_lightning import KTS, EmpiricalVelocity, Schedule, UserError, compare_schedules
from fm_lightning.flow import Diffusion

POINTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
DATA = {"train": POINTS[:20], "real": POINTS[20:40], "held_out": POINTS[40:]}
SCHEDULES = {"base": Schedule(steps=12), "sde": Schedule(steps=12, diffusion=Diffusion(0.5))}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sde")
    options = {"seeds": 30, "families": ["noise"], "judge": ["sde"], "folder": folder}
    result = compare_schedules(EmpiricalVelocity(DATA["train"]), SCHEDULES, **DATA, **options)
    result.report()
    return result


def test_lines_are_null_where_nothing_exists(found):
    for part in found.table.parts:
        lines = part.lines().to_pylist()
        sde = [line for line in lines if line["row"] == "sde"]
        assert all(line["displacement"] is None and line["excess"] is None for line in sde)
        assert all(line["kpe"] > 0 for line in sde)
        assert all(line["excess"] is not None for line in lines if line["row"] == "base")
    lines = found.table.lines("sde")
    assert lines.excess.isna().all()
    assert abs(lines.kpe.mean() / found.table.lines("base").kpe.mean() - 1) < 0.2, "the velocity's, not the drift's"


def test_no_number_is_nan_and_cells_are_empty(found):
    row = found.results.row("sde")
    assert not {"excess_mean", "displacement_mean"} & set(row.metrics)
    assert row.metrics["kpe_mean"] > 0
    text = (found.folder / "results.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["rows"]
    with open(found.folder / "results.csv") as file:
        cells = {line["row" if "row" in line else "name"]: line for line in csv.DictReader(file)}
    assert cells["sde"]["excess_mean"] == ""
    assert cells["base"]["excess_mean"] != ""
    assert not any(value.lower() == "nan" for line in cells.values() for value in line.values())
    page = (found.folder / "report.html").read_text()
    assert ">nan<" not in page.lower()


def test_a_gain_with_a_diffusion_is_refused():
    with pytest.raises(UserError, match=r"A gain has no meaning with a diffusion yet\. Leave one of the two out\."):
        Schedule(KTS(), diffusion=Diffusion())
