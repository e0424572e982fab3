"""``fm-lightning report``: the same results anew from the evaluation, and what it says where there is none."""

from __future__ import annotations

import csv
import json

from tiny_runs import says


def test_report_says_what_is_missing(refused, tmp_path):
    says(refused("report"), "expected one run directory", "type fm-lightning report RUN_DIR")
    says(refused("report", "a", "b"), "expected one run directory")
    says(refused("report", "--again"), "expected one run directory")
    says(
        refused("report", "nowhere"), "nowhere given", "expected an existing run directory", "type fm-lightning report"
    )
    says(refused("report", "tiny.yaml"), "tiny.yaml given", "expected a run directory", "type fm-lightning report")
    (tmp_path / "run").mkdir()
    says(refused("report", "run"), "run holds no evaluation", "fm-lightning test -c run")


def test_report_draws_a_finished_comparison_anew(command, tmp_path):
    ended = command("run", "-c", "tiny.yaml")
    assert ended.status == 0, ended.err
    run = tmp_path / "runs" / "tiny"
    kept = {name: (run / name).read_bytes() for name in ("results.json", "results.csv", "report.html")}
    for name in kept:
        (run / name).unlink()
    again = command("report", run)
    assert again.status == 0, again.err
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert again.out[again.out.index("schedule ") :].split("Report:")[0] in ended.out, "the same table and words"
    results = json.loads(kept["results.json"])
    with (run / "results.csv").open(newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)] == [row["name"] for row in results["rows"]]
