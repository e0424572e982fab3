"""``fm-lightning compare`` on tiny runs that were really trained, sampled and judged."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import says, tiny_config
from wandb_files import read_wandb

from fm_lightning.comparison.results import Results
from fm_lightning.files import SUM, write_json
from fm_lightning.study.across_runs import _sentence, build
from fm_lightning.study.replicates import Run, experiments
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.verdicts.random_effects import combine

REPLICATES = ("t0", "t1", "t2")


def judged(config):
    """600 seeds and a Fréchet distance, so that verdicts are made."""
    config["data"]["init_args"].update(eval_batch_size=600, test_seeds=600)
    callbacks = config["trainer"]["callbacks"]
    callbacks[4]["init_args"]["families"] = "cheap"
    callbacks.insert(3, {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": "fd_raw"}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """runs/t0, t1, t2 of three seeds, judged, and runs/spiral on other data."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("runs")
    tiny, replicate = tiny_config(folder / "tiny.yaml"), tiny_config(folder / "judged.yaml", judged)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        # The page of one run takes seconds, and is no part of this.
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *_: folder)
        for seed, name in enumerate(REPLICATES):
            cli.main(["run", "-c", str(replicate), "--name", name, "--seed_everything", str(seed)])
        cli.main(["run", "-c", str(tiny), "--name", "spiral", "--data.init_args.name", "spiral"])
    return folder / "runs"


@pytest.fixture
def runs(trained, tmp_path):
    """Copies where commands run."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_effects_are_those_of_the_tables(command, runs):
    ended = command("compare", *(f"runs/{name}" for name in (*REPLICATES, "spiral")))
    assert ended.status == 0, ended.err
    out = runs / "compare-t0-t1-t2-spiral"
    comparison = json.loads((out / "compare.json").read_text())
    one, other = comparison["experiments"]
    assert [[run["name"] for run in entry["runs"]] for entry in (one, other)] == [list(REPLICATES), ["spiral"]]
    assert other["apart"] == ["spiral has other training data than t0"]
    says(ended.out, "Not pooled: spiral has other training data than t0.")

    (kts,) = one["schedules"]
    for name in REPLICATES:
        columns = ["kpe", "displacement"]
        base, shaped = (Evaluation.open(runs / name).lines(row)[columns].astype("float64") for row in ("base", "kts"))
        assert len(base) == 600
        change = (shaped.kpe - base.kpe) / 2
        found = kts["effects"]["kpe_per_dimension"]["runs"][name]
        assert found["value"] == pytest.approx(change.mean(), rel=1e-5)
        assert found["error"] == pytest.approx(change.std() / np.sqrt(600), rel=1e-3)
        ratio = shaped.kpe.mean() / shaped.displacement.mean() - base.kpe.mean() / base.displacement.mean()
        assert kts["effects"]["kpe_per_displacement"]["runs"][name]["value"] == pytest.approx(ratio, abs=1e-7)
        row = next(r for r in json.loads((runs / name / "results.json").read_text())["rows"] if r["name"] == "kts")
        assert [kts["effects"]["f_mem"]["runs"][name][e] for e in ("value", "low", "high")] == row["vs_base"]["f_mem"]
    for measure, effect in kts["effects"].items():
        values, errors = ([run[key] for run in effect["runs"].values()] for key in ("value", "error"))
        expected = combine(values, errors)
        assert effect["combined"]["value"] == expected.value, measure
        assert effect["combined"]["prediction"] == (expected.prediction and list(expected.prediction)), measure
    assert {"f_mem", "quality_frechet", "quality_kernel", "fd_raw"} <= set(kts["effects"])
    assert all(len(kts["effects"][name]["runs"]) == 3 for name in ("f_mem", "fd_raw", "kpe_per_dimension"))
    assert all(effect["combined"] is None for effect in other["schedules"][0]["effects"].values())

    lines = list(csv.DictReader((out / "compare.csv").open()))
    given = [effect for entry in (one, other) for s in entry["schedules"] for effect in s["effects"].values()]
    assert len(lines) == sum(len(effect["runs"]) + bool(effect["combined"]) for effect in given)
    pooled = next(line for line in lines if (line["run"], line["measure"]) == ("combined", "f_mem"))
    assert float(pooled["value"]) == kts["effects"]["f_mem"]["combined"]["value"]
    assert float(pooled["prediction_low"]) == kts["effects"]["f_mem"]["combined"]["prediction"][0]

    page = (out / "compare.html").read_text()
    assert page.count("<img") == 1
    assert "<script" not in page
    assert all(name in page for name in (*REPLICATES, "spiral"))
    assert one["schedules"][0]["verdict"]["sentence"] in page.replace("&#39;", "'")


def test_a_comparison_is_never_overwritten(command, refused, runs):
    assert command("compare", "runs/t0", "runs/t1").status == 0
    first = (runs / "compare-t0-t1/compare.json").read_bytes()
    ended = command("compare", "runs/t0", "runs/t1")
    says(ended.out, "2 replicates, fewer than 3: no prediction interval")
    says(ended.out, "Report: runs/compare-t0-t1-2/compare.html")
    assert (runs / "compare-t0-t1/compare.json").read_bytes() == first
    assert json.loads(first)["experiments"][0]["schedules"][0]["effects"]["f_mem"]["combined"]["prediction"] is None
    says(
        refused("compare", "runs/t0", "runs/t1", "--out", "runs/compare-t0-t1"),
        "holds files",
        "Name a new or empty directory",
    )


def test_what_is_refused(command, refused, runs):
    says(refused("compare"), "at least two runs")
    says(refused("compare", "runs/t0"), "at least two runs")
    says(refused("compare", "runs/t0", "runs/t0/"), "named twice")
    says(refused("compare", "runs/t0", "nowhere"), "nowhere does not exist")
    says(refused("compare", "runs/t0", "--speed", "3"), "--speed", "fm-lightning compare --help")
    (runs / "empty").mkdir()
    says(refused("compare", "runs/t0", "runs/empty"), "runs/empty holds no evaluation", "Compare schedules there first")
    shutil.copytree(runs / "t0", runs / "copy")
    says(refused("compare", "runs/t0", "runs/copy"), "t0 and copy are the same run", "Remove one of them")


def test_an_unfinished_run_is_refused(refused, runs):
    (runs / "t1/results.json").rename(runs / "t1/kept")
    says(
        refused("compare", "runs/t0", "runs/t1"), "runs/t1 holds no finished comparison", "fm-lightning test -c runs/t1"
    )
    whole = (runs / "t1/kept").read_text()
    (runs / "t1/results.json").write_text(whole[:100])
    says(
        refused("compare", "runs/t0", "runs/t1"), "results.json: The results are damaged", "fm-lightning report runs/t1"
    )
    (runs / "t1/results.json").write_text(json.dumps(json.loads(whole) | {"schema": 1}))
    says(refused("compare", "runs/t0", "runs/t1"), "have version 1", "fm-lightning report runs/t1")
    fewer = json.loads(whole)
    fewer["rows"] = [row for row in fewer["rows"] if row["name"] != "kts"]
    fewer.pop(SUM)
    write_json(runs / "t1/results.json", fewer)
    says(refused("compare", "runs/t0", "runs/t1"), "older than its evaluation", "fm-lightning report runs/t1")
    (runs / "t1/results.json").write_text(whole)
    evaluation = Evaluation.open(runs / "t2")
    lost = next(part for part in evaluation.parts if part.first == evaluation.seeds.start)
    shutil.rmtree(lost.path)
    says(refused("compare", "runs/t0", "runs/t2"), "unfinished comparison", "of 600 seeds", "fm-lightning test -c")


def test_one_name_for_two_schedules_is_refused(command, refused, runs):
    """The row is resampled under its name, as by a user who changes a schedule."""
    ended = command(
        "test", "-c", "runs/spiral/config.yaml", "--model.test_schedules.kts.gain.init_args.alpha", "0.03"
    )  # fmt: skip
    assert ended.status == 0, ended.err
    says(refused("compare", "runs/t0", "runs/spiral"), "Row 'kts'", "schedule.gain.alpha 0.02 in t0 and 0.03 in spiral")


def with_verdicts(runs: Path, *outcomes: str, p: float = 1e-6) -> dict:
    """The comparison of the replicates, had their verdicts been these."""
    found = []
    for name, outcome in zip(REPLICATES, outcomes):
        results = json.loads((runs / name / "results.json").read_text())
        (entry,) = results["verdicts"]
        entry |= {"outcome": outcome, "measure": "frechet", "base_quality": 0.5}
        entry["families"] = [{"family": "noise", "outcome": outcome, "relative": [-0.02, -0.04, 0.0], "p_better": p}]
        found.append(Run(name, Results.from_dict(results), Evaluation.open(runs / name)))
    return build(experiments(found))


@pytest.mark.parametrize(
    ("outcomes", "p", "stands", "words"),
    [
        (("better",) * 3, 1e-6, True, "better in all 3 runs, also after Holm's correction"),
        (("better",) * 3, 0.04, False, "better in all 3 runs, but not after Holm's correction"),
        (("better",) * 2, 1e-6, False, "better in both runs; a claim needs at least 3 training seeds"),
        (
            ("better", "no better", "better"),
            1e-6,
            False,
            "better in 2 and no better in 1 of 3 runs, which does not replicate",
        ),
        (("no better",) * 3, 1.0, False, "no better than noise, in all 3 runs"),
        (("worse", "no better", "worse"), 1.0, False, "no better than noise, in all 3 runs"),
        (("undecided",) * 3, 1.0, False, "undecided in all 3 runs"),
        (("no claim",) * 2, 1.0, False, "no claim in both runs"),
    ],
)
def test_what_replicates(trained, outcomes, p, stands, words):
    found = with_verdicts(trained, *outcomes, p=p)
    verdict = found["experiments"][0]["schedules"][0]["verdict"]
    assert verdict["stands"] is stands
    assert verdict["sentence"].startswith(words)
    assert found["headline"] == f"kts: {verdict['sentence']}."
    assert list(verdict["families"]["noise"].values()) == list(outcomes)


def test_another_family_in_each_run_is_no_replication(trained):
    """Two families, of which another one is as good as the schedule in each run."""
    (entry,) = with_verdicts(trained, *["no better"] * 3)["experiments"]
    verdict = entry["schedules"][0]["verdict"]
    verdict["families"] = {
        "noise": dict(zip(REPLICATES, ("no better", "better", "better"))),
        "blend": dict(zip(REPLICATES, ("undecided", "no better", "no better"))),
    }
    words = "no better in all 3 runs, but each time than another family, which does not replicate"
    assert _sentence(verdict, 1) == words


def test_a_family_that_one_run_did_not_test_is_not_named_for_all():
    runs = ("a", "b", "c")
    families = {"noise": dict.fromkeys(runs, "no better"), "average": {"a": "no better"}}
    found = _sentence({"outcomes": dict.fromkeys(runs, "no better"), "families": families}, 1)
    assert found == "no better than noise, in all 3 runs"
    alone = {"outcomes": dict.fromkeys(runs, "no better"), "families": {"average": {"a": "no better"}}}
    assert "does not replicate" in _sentence(alone, 1)


def test_worse_and_no_better_are_told_apart():
    runs = ("a", "b", "c")
    families = {"noise": dict.fromkeys(runs, "worse"), "late brake": dict.fromkeys(runs, "no better")}
    words = "worse than noise, and no better than a late brake, in all 3 runs"
    assert _sentence({"outcomes": dict.fromkeys(runs, "worse"), "families": families}, 1) == words


def test_residuals_are_combined(trained):
    effect = with_verdicts(trained, *["better"] * 3)["experiments"][0]["schedules"][0]["effects"]["residual_noise"]
    for name in REPLICATES:
        assert effect["runs"][name]["value"] == pytest.approx(-0.02), "of base's distance"
    assert effect["combined"]["replicates"] == 3


def test_wandb_takes_it_as_a_run_of_its_own(command, runs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ended = command("compare", "runs/t0", "runs/t1", "runs/spiral", "--wandb", "--out", "told")
    assert ended.status == 0, ended.err
    logged = read_wandb(Path("told"))
    assert {"compare/effects", "compare/verdicts", "compare/forest", "compare/report"} <= logged["history"].keys()
    assert logged["summary"]["headline"] == json.loads(Path("told/compare.json").read_text())["headline"]
    assert set(logged["config"]["runs"]) == {"t0", "t1", "spiral"}
    assert logged["config"]["replicates"] == [["t0", "t1"], ["spiral"]]
    combined = json.loads(Path("told/compare.json").read_text())["experiments"][0]["schedules"][0]["effects"]["f_mem"][
        "combined"
    ]
    assert logged["summary"]["t0/kts/f_mem"] == pytest.approx(combined["value"])
    assert logged["summary"]["spiral/kts/f_mem_lo"] <= logged["summary"]["spiral/kts/f_mem"]
    (table,) = Path("told").rglob("effects*.table.json")
    with Path("told/compare.csv").open() as lines:
        expected = list(csv.reader(lines))
    found = json.loads(table.read_text())
    assert found["columns"] == expected[0]
    assert [str(line[4]) for line in found["data"]] == [line[4] for line in expected[1:]]
