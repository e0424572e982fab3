"""Which schedules get doses of families on calibration seeds."""

from __future__ import annotations

import numpy as np
import pytest

from fm_lightning.comparison import calibrate
from fm_lightning.comparison.calibrate import candidates, choose
from fm_lightning.comparison.rows import schedule_rows
from fm_lightning.flow import Schedule
from fm_lightning.verdicts.margins import Margins

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
def test_doses_are_chosen_unless_calibration_excludes_that_it_lowers(monkeypatch, mine, chosen):
    rows = schedule_rows({"mine": Schedule(x0_scale=1.01)})
    asked = candidates(rows, ["mine"], "cheap")

    def hits(evaluation, name, threshold, seeds):
        if name in ("base", "mine"):
            return mine if name == "mine" else BASE
        return np.arange(N) < 350 - 60 * (1 + int(name.rpartition("~")[2]))

    monkeypatch.setattr(calibrate, "copies", hits)
    (found,) = choose(None, asked, range(N), 1 / 3, 2000, {}, Margins()).values()
    assert {bool(places) for places in found.values()} == {chosen}
