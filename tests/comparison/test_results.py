"""Results survive the way through JSON; an older or damaged file ends in one line."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from fm_lightning.comparison.results import (
    SCHEMA,
    FamilyResult,
    Interval,
    Results,
    RowResult,
    VerdictResult,
    read_results,
)
from fm_lightning.errors import UserError


def results() -> Results:
    rows = (
        RowResult("base", "base", metrics={"f_mem": 0.5, "kpe_mean": None}),
        RowResult("kts", "schedule", vs_base={"f_mem": Interval(-0.1, -0.2, 0.0)}, samples=40),
    )
    family = FamilyResult("noise", "better", "better than noise", residual=Interval(-1.0, -2.0, -0.5))
    verdict = VerdictResult("kts", "base", "better", memorized=0.4, base_memorized=0.5, families=(family,))
    return Results(rows, name="$\\frac{$", verdicts=(verdict,), shape=(1, 8, 8), config={"data": {"n": 3}})


def test_they_come_back_from_json(tmp_path):
    assert Results.from_json(results().to_json()) == results()
    results().write(tmp_path)
    assert read_results(tmp_path) == results()


def test_what_is_no_finite_number_is_null_in_the_file():
    found = Results(
        (RowResult("base", "base", metrics={"a": math.nan}, vs_base={"a": Interval(1.0, math.nan, math.inf)}),)
    )
    content = json.loads(found.to_json())["rows"][0]
    assert content["metrics"] == {"a": None}
    assert content["vs_base"] == {"a": [1.0, None, None]}
    assert math.isnan(Results.from_json(found.to_json()).rows[0].vs_base["a"].low)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'{{"schema": {SCHEMA - 1}, "rows": []}}', f"have version {SCHEMA - 1}"),
        ('{"rows": []}', "have version None"),
        ("[1, 2]", "have version None"),
        ("half a fi", "are damaged"),
        (f'{{"schema": {SCHEMA}}}', "are damaged"),
        (f'{{"schema": {SCHEMA}, "rows": 3}}', "are damaged"),
        (f'{{"schema": {SCHEMA}, "rows": [["base"]]}}', "are damaged"),
        (f'{{"schema": {SCHEMA}, "rows": [{{"name": "base"}}]}}', "are damaged"),
        (
            f'{{"schema": {SCHEMA}, "rows": [{{"name": "a", "kind": "base", "metrics": {{"f_mem": "x"}}}}]}}',
            "are damaged",
        ),
    ],
)
def test_another_version_or_a_damaged_file_ends_in_one_line(tmp_path, text, problem):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=problem) as caught:
        read_results(tmp_path)
    assert f"fm-lightning report {tmp_path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match="holds no finished comparison"):
        read_results(tmp_path)


def test_they_are_read_without_torch():
    code = "import sys, fm_lightning.comparison.results; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
