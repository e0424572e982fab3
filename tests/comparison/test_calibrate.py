"""Which doses are chosen on calibration seeds: the same in any order of schedules, only where something is to explain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fm_lightning import EmpiricalVelocity, Evaluation, Schedule, compare_schedules
from fm_lightning.comparison import build
from fm_lightning.comparison.calibrate import Calibration, candidates
from fm_lightning.comparison.families import NOISE
from fm_lightning.comparison.rows import schedule_rows
from fm_lightning.table.manifest import Manifest
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.outcomes import FamilyVerdict

N = 500
BASE = np.arange(N) < 350


@pytest.mark.parametrize(
    ("mine", "chosen"),
    [
        (np.arange(N) < 300, True),
        (np.roll(BASE, 100), True),  # equally many copies, on other seeds: a fall by a point is not excluded
        (BASE, False),
        (np.arange(N) < 380, False),
    ],
    ids=["lowers", "redrawn", "same", "raises"],
)
def test_doses_are_chosen_unless_calibration_excludes_that_it_lowers(mine, chosen, tmp_path):
    rows = schedule_rows({"base": Schedule(), "mine": Schedule(x0_scale=1.01)})
    asked = candidates(rows, ["mine"], ["noise", "constant gain"])
    calibration = Calibration(asked, range(N), 1 / 3, 2000, Margins())
    table = Evaluation(tmp_path, Manifest(), [])
    rounds = 0
    found, wanted = calibration.advance(table)
    assert not any("constant gain" in name for name in wanted), "its doses cost whole samplings, and may not be needed"
    while wanted:
        rounds += 1
        for row in calibration.rows(wanted).values():
            s = row.schedule
            dose = s.end_noise if s.gain is None else 1 - s.gain.value
            calibration._known[row.key] = mine if s.x0_scale != 1 else np.arange(N) < 350 * (1 - dose / 0.4)
        found, wanted = calibration.advance(table)
    assert rounds == (2 if chosen else 1)
    (places,) = found.values()
    assert {bool(each) for each in places.values()} == {chosen}


POINTS = torch.randn(72, 2, generator=torch.Generator().manual_seed(0))
DATA = {"train": POINTS[:24], "real": POINTS[24:48], "held_out": POINTS[48:]}
SCHEDULES = {
    "base": Schedule(steps=8),
    "some": Schedule(steps=8, end_noise=0.06),
    "more": Schedule(steps=8, end_noise=0.07),
}


CAUTIOUS = replace(NOISE, caution="which a reader has to know")


class Counted:
    """The closed form, counting its rows."""

    def __init__(self):
        self.field, self.rows = EmpiricalVelocity(DATA["train"]), 0
        self.singular_end = True

    def __call__(self, x, t, y=None):
        self.rows += len(x)
        return self.field(x, t, y)

    def evaluations(self, t):
        return 1

    def at(self, t):
        return self


def compared(folder, names, field=None):
    schedules = {name: SCHEDULES[name] for name in ("base", *names)}
    options = {"seeds": 40, "batch_size": 250, "features": None, "folder": folder, "judge": list(names)}
    families = [CAUTIOUS, "blend", "noise temperature", "fewer steps"]
    return compare_schedules(field or Counted(), schedules, **DATA, **options, families=families)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    field = Counted()
    found = compared(tmp_path_factory.mktemp("together"), ["some", "more"], field)
    return found.table, field.rows


def test_doses_are_the_same_when_a_schedule_is_added_later(together, tmp_path):
    table, _ = together
    assert all(any(places for places in doses.values()) for doses in table.manifest.chosen.values())
    for order in (["some", "more"], ["more", "some"]):
        folder = tmp_path / order[0]
        compared(folder, order[:1])
        grown = compared(folder, order).table
        assert grown.manifest.chosen == table.manifest.chosen
        assert {part.path.name[:19] for part in grown.parts} == {part.path.name[:19] for part in table.parts}


def test_schedules_share_what_their_families_sample(together, tmp_path):
    table, rows = together
    families = {name: about["key"] for name, about in table.shown.items() if about["kind"] == "family"}
    assert len(set(families.values())) < len(families), "rows of both schedules are sampled once"
    alone = 0
    for name in ("some", "more"):
        field = Counted()
        compared(tmp_path / name, [name], field)
        alone += field.rows
    assert rows < 0.7 * alone


def test_a_caution_stands_next_to_the_familys_sentence(together):
    table, _ = together
    assert table.manifest.judged["some"]["cautions"] == {"noise": CAUTIOUS.caution}
    found = build._family(None, FamilyVerdict("noise", "out of reach"), CAUTIOUS.caution)
    assert found["sentence"].endswith(f"cannot lower copies as far in its dose range; {CAUTIOUS.caution}")


def test_a_finished_one_samples_nothing_and_shows_no_bar(together, tmp_path, capsys):
    table, _ = together
    field = Counted()
    capsys.readouterr()
    compared(table.folder.parent, ["some", "more"], field)
    assert field.rows < 1000, "the probe of the velocity alone"
    assert "Choosing doses" not in capsys.readouterr().out
