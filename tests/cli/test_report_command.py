"""``fm-lightning report``: the same results recomputed from the evaluation, and the error where there is none."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict

import torch
from tiny_runs import says

from fm_lightning import Schedule, compare_schedules
from fm_lightning.table.claim import RUNNING, Owner


def test_report_says_what_is_missing(refused, tmp_path):
    says(refused("report"), "report takes one run directory", "Use fm-lightning report runs/NAME")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    says(refused("report", "a", "b"), "report takes one run directory")
    says(refused("report", "--again"), "report takes one run directory")
    says(refused("report", "nowhere"), "nowhere does not exist", "fm-lightning ls")
    says(refused("report", "tiny.yaml"), "tiny.yaml is a file, not a run directory", "Use fm-lightning report")
    says(refused("report", "a"), "a holds no evaluation", "Compare schedules there first")


def test_report_draws_a_finished_comparison_anew(command, drawn, tmp_path):
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


def test_damaged_files_and_what_repairs_them(command, refused, tmp_path):
    assert command("run", "-c", "tiny.yaml").status == 0
    run = tmp_path / "runs" / "tiny"
    rows = json.loads((run / "results.json").read_text())["rows"]
    says(refused("test", "-c", run), "holds a finished comparison")

    (run / RUNNING).write_text(json.dumps(asdict(Owner("a1", "elsewhere", "other-host", 1))))
    says(refused("report", run), "Another command (process 1 on other-host) is writing to")
    (run / RUNNING).unlink()

    lines = next(run.glob("evaluation/parts/*/lines.parquet"))
    lines.write_bytes(lines.read_bytes()[:-9])
    ended = command("test", "-c", run)
    assert ended.status == 0, ended.err
    says(ended.out, "lines.parquet has")
    assert json.loads((run / "results.json").read_text())["rows"] == rows, "sampled again, with the same numbers"

    (kept,) = run.glob("evaluation/measures/neighbours-*.json")
    for damage in (kept.read_text().replace("crc32", "crc23"), "", "\x00", None):
        kept.unlink() if damage is None else kept.write_text(damage)
        says(refused("report", run), str(kept), f"Run fm-lightning test -c {run} --again evaluation")
    assert command("test", "-c", run, "--again", "evaluation").status == 0
    assert command("report", run).status == 0
    assert json.loads((run / "results.json").read_text())["rows"] == rows


def test_a_measure_that_lost_its_file_is_noticed_and_measured_again(command, refused, tmp_path):
    assert command("run", "-c", "tiny.yaml").status == 0
    run = tmp_path / "runs" / "tiny"
    rows = json.loads((run / "results.json").read_text())["rows"]
    next(run.glob("evaluation/parts/*/neighbours-*.json")).unlink()
    ended = command("report", run)
    says(ended.out, "samples lack neighbours and do not count in it", f"fm-lightning test -c {run}")
    ended = command("test", "-c", run)
    assert ended.status == 0, ended.err
    assert json.loads((run / "results.json").read_text())["rows"] == rows
    says(refused("test", "-c", run), "holds a finished comparison")

    shutil.rmtree(next(run.glob("evaluation/parts/0*")))
    kept = (run / "results.json").read_bytes()
    says(command("report", run).out, "samples are missing since the last report", f"fm-lightning test -c {run}")
    (run / "results.json").write_bytes(kept)
    ended = command("test", "-c", run)
    assert ended.status == 0, ended.err
    assert json.loads((run / "results.json").read_text())["rows"] == rows


def test_a_saved_configuration_that_changed_is_named_and_used(command, tmp_path):
    """The end cut off is still YAML, without the last callbacks; an edit is what it was edited for."""
    assert command("run", "-c", "tiny.yaml").status == 0
    run = tmp_path / "runs" / "tiny"
    saved = run / "config.yaml"
    text = saved.read_text()
    assert "edited or damaged" not in command("report", run).err
    for number, changed in enumerate(
        (text[: text.index("  - class_path: fm_lightning.callbacks.Mem")], text + "# mine\n")
    ):
        other = tmp_path / f"runs/other-{number}"
        shutil.copytree(run, other)
        (other / "config.yaml").write_text(changed)
        ended = command("report", other)
        assert ended.status == 0, ended.err
        said = ended.err.splitlines()
        assert said == [f"{other}/config.yaml was edited or damaged since fm-lightning saved it; it is used as it is"]


def test_without_its_configuration_a_run_has_no_thresholds(command, refused, tmp_path):
    assert command("run", "-c", "tiny.yaml").status == 0
    (tmp_path / "runs/tiny/config.yaml").unlink()
    says(refused("report", "runs/tiny"), "config.yaml is missing", "Restore it")


def test_a_comparison_made_in_python_keeps_its_settings(command, refused, tmp_path):
    torch.manual_seed(0)
    points = torch.randn(60, 2)
    compare_schedules(
        lambda x, t, y=None: -x,
        {"base": Schedule(steps=4)},
        train=points[:30],
        real=points[30:],
        seeds=20,
        families="none",
        threshold=0.9,
        tau_split=0.5,
        folder="mine",
    ).report()
    before = json.loads((tmp_path / "mine/results.json").read_text())
    ended = command("report", "mine")
    assert ended.status == 0, ended.err
    after = json.loads((tmp_path / "mine/results.json").read_text())
    assert (after["threshold"], after["tau_split"]) == (0.9, 0.5)
    assert [row["metrics"]["f_mem"] for row in after["rows"]] == [row["metrics"]["f_mem"] for row in before["rows"]]
    ended = command("report", "mine", "--trainer.callbacks.MemorizationMonitor.threshold", 0.5)
    assert json.loads((tmp_path / "mine/results.json").read_text())["threshold"] == 0.5
