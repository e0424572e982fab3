"""``fm-lightning compare`` on tiny runs that were really trained, sampled and judged."""

from __future__ import annotations

import csv
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import says, tiny_config
from wandb_files import read_wandb

from fm_lightning import KTS, Schedule, compare_schedules
from fm_lightning.comparison.results import Results, RowResult
from fm_lightning.files import SUM, write_json
from fm_lightning.nets import ResidualMLP
from fm_lightning.report.run_forest import run_forest
from fm_lightning.report.run_page import lines, render
from fm_lightning.study.across_runs import build
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


def watched(config):
    """Kept checkpoints, the family that needs them, and validations at other steps, which train nothing else."""
    config["trainer"]["val_check_interval"] = 4
    callbacks = config["trainer"]["callbacks"]
    callbacks[5]["init_args"]["families"] = ["cheap", "earlier checkpoint"]
    kept = {"class_path": "fm_lightning.callbacks.CheckpointSeries", "init_args": {"count": 3, "ratio": 1.5}}
    callbacks.append(kept)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """runs/t0, t1, t2 of three seeds, judged, of which t2 observes otherwise; and runs/spiral on other data."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("runs")
    tiny, replicate = tiny_config(folder / "tiny.yaml"), tiny_config(folder / "judged.yaml", judged)
    other = tiny_config(folder / "watched.yaml", lambda config: (judged(config), watched(config)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        # The page of one run takes seconds, and is no part of this.
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *_: folder)
        for seed, name in enumerate(REPLICATES):
            config = other if name == "t2" else replicate
            cli.main(["run", "-c", str(config), "--name", name, "--seed_everything", str(seed)])
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


Outcomes = tuple[str | None, ...]  # one for each of the replicates; None: not tested


def with_verdicts(runs: Path, families: dict[str, Outcomes], p: float = 1e-6, **facts: Outcomes) -> list[Run]:
    """The replicates as they would be, had their schedule been judged so: an outcome for each family and run.

    ``outcome``, ``measure``, ``base_quality`` and ``robustness`` replace these facts of the verdicts, run by run.
    """
    found = []
    for i, name in enumerate(REPLICATES[: len(next(iter(families.values())))]):
        results = json.loads((runs / name / "results.json").read_text())
        (entry,) = results["verdicts"]
        here = {family: outcomes[i] for family, outcomes in families.items() if outcomes[i]}
        order = ("worse", "no better", "undecided", "better", "out of reach")
        entry |= {"outcome": next((o for o in order if o in here.values()), "no claim")}
        entry |= {"measure": "frechet", "base_quality": 0.5, "robustness": []}
        entry |= {key: values[i] for key, values in facts.items()}
        change = {"relative": [-0.02, -0.04, 0.0], "other_relative": [-0.01, -0.02, 0.0], "p_better": p}
        entry["families"] = [{"family": family, "outcome": outcome} | change for family, outcome in here.items()]
        found.append(Run(name, Results.from_dict(results), Evaluation.open(runs / name)))
    return found


def verdict_on(runs: list[Run]) -> dict:
    (entry,) = build(experiments(runs))["experiments"]
    return entry["schedules"][0]["verdict"]


@pytest.mark.parametrize(
    ("outcomes", "p", "stands", "words"),
    [
        (("better",) * 3, 1e-6, True, "better than noise, in all 3 runs, also after Holm's correction"),
        (("better",) * 3, 0.04, False, "better than noise, in all 3 runs, but not after Holm's correction"),
        (("better",) * 2, 1e-6, False, "better than noise, in both runs; a claim needs at least 3 training seeds"),
        (
            ("better", "no better", "better"),
            1e-6,
            False,
            "better in 2 and no better in 1 of 3 runs, which does not replicate",
        ),
        (("no better",) * 3, 1.0, False, "no better than noise, in all 3 runs"),
        (("worse", "no better", "worse"), 1.0, False, "no better than noise, in all 3 runs"),
        (("undecided",) * 3, 1.0, False, "undecided in all 3 runs"),
        (("out of reach",) * 3, 1.0, False, "out of reach in all 3 runs"),
        ((None,) * 2, 1.0, False, "no claim in both runs"),
    ],
)
def test_what_replicates(trained, outcomes, p, stands, words):
    found = build(experiments(with_verdicts(trained, {"noise": outcomes}, p=p)))
    verdict = found["experiments"][0]["schedules"][0]["verdict"]
    assert verdict["stands"] is stands
    assert verdict["sentence"].startswith(words)
    assert found["headline"] == f"kts: {verdict['sentence']}."
    assert list(verdict["families"].get("noise", {}).values()) == [outcome for outcome in outcomes if outcome]


B, N, W, U, FAR = "better", "no better", "worse", "undecided", "out of reach"
HOLM = ", also after Holm's correction for the schedule judged here"
TWICE = "but each time than another family, which does not replicate"


@pytest.mark.parametrize(
    ("families", "stands", "sentence"),
    [
        # A family that some run did not test is in no sentence about all runs.
        (
            {"noise": (B, B, B), "average": (B, None, None)},
            True,
            f"better than noise, in all 3 runs (a longer average was tested in t0 only){HOLM}",
        ),
        (
            {"noise": (B, B, B), "average": (B, B, None), "earlier checkpoint": (B, B, None)},
            True,
            "better than noise, in all 3 runs (a longer average and an earlier checkpoint were not tested in t2)"
            + HOLM,
        ),
        (
            {"noise": (B, B, B), "average": (None, B, B), "earlier checkpoint": (B, None, None)},
            True,
            "better than noise, in all 3 runs (an earlier checkpoint was tested in t0 only; a longer average was not tested "
            f"in t0){HOLM}",
        ),
        (
            {"noise": (B, B, B), "average": (None, None, N)},
            False,
            "better in 2 and no better in 1 of 3 runs (a longer average was tested in t2 only), which does not replicate",
        ),
        (
            {"noise": (N, N, N), "average": (N, None, None)},
            False,
            "no better than noise, in all 3 runs (a longer average was tested in t0 only)",
        ),
        (
            {"noise": (W, W, W), "late brake": (N, N, N), "average": (W, W, None)},
            False,
            "worse than noise, and no better than a late brake, in all 3 runs (a longer average was not tested in t2)",
        ),
        # The same outcome in every run, and no family that has it in each.
        ({"noise": (N, B, B), "blend": (U, N, N)}, False, f"no better in all 3 runs, {TWICE}"),
        (
            {"noise": (B, None, B), "blend": (None, B, None)},
            False,
            f"better in all 3 runs (noise was not tested in t1; blending was tested in t1 only), {TWICE}",
        ),
        (
            {"noise": (B, FAR, B), "blend": (FAR, B, FAR)},
            False,
            "better in all 3 runs (noise cannot lower copies as far in t1; blending cannot lower copies as far in t0 and "
            f"t2), {TWICE}",
        ),
        # Families that cannot lower copies as far were not beaten.
        (
            {"noise": (B, B, B), "blend": (FAR, FAR, FAR), "late brake": (B, FAR, B)},
            True,
            "better than noise, in all 3 runs (blending cannot lower copies as far; a late brake cannot lower copies as "
            f"far in t1){HOLM}",
        ),
        # Of fewer runs, the same.
        (
            {"noise": (B, B), "average": (B, None)},
            False,
            "better than noise, in both runs (a longer average was not tested in t1); a claim needs at least 3 training "
            "seeds",
        ),
        # A run without any verdict on families did not leave one of them out.
        ({"noise": (N, N, None)}, False, "no better in 2 and no claim in 1 of 3 runs, which does not replicate"),
    ],
)
def test_a_sentence_names_what_every_run_tested(trained, families, stands, sentence):
    verdict = verdict_on(with_verdicts(trained, families))
    assert verdict["sentence"] == sentence
    assert verdict["stands"] is stands


def test_a_run_that_did_not_judge_the_schedule_is_not_counted(trained):
    runs = with_verdicts(trained, {"noise": (N, N, N)})
    runs[1] = replace(runs[1], results=replace(runs[1].results, verdicts=()))
    words = "no better than noise, in the 2 runs that judged it; a claim needs at least 3 training seeds"
    assert verdict_on(runs)["sentence"] == words


def test_runs_judged_by_different_distances_make_no_claim(trained):
    """As with fewer seeds, where the kernel distance judges: how far it varies between seeds is then unknown."""
    runs = with_verdicts(trained, {"noise": (B, B, B)}, measure=("frechet", "kernel", "frechet"))
    (entry,) = build(experiments(runs))["experiments"]
    (schedule,) = entry["schedules"]
    assert not schedule["verdict"]["stands"]
    assert schedule["verdict"]["sentence"] == (
        "better than noise, in all 3 runs (by the Fréchet distance in t0 and t2, by the kernel distance in t1), but the "
        "distance's spread between training seeds is unknown, so nothing is claimed"
    )
    residuals = schedule["effects"]["residual_noise"]["runs"]
    assert {run: effect["value"] for run, effect in residuals.items()} == {"t0": -0.01, "t1": -0.02, "t2": -0.01}


def test_a_definition_that_reverses_an_outcome_is_named(trained):
    quarter = {"name": "at a threshold of 1/4", "outcome": U, "families": {"noise": U}, "reverses": ["noise"]}
    blending = {"name": "by the kernel distance", "outcome": U, "families": {}, "reverses": ["average"]}
    families = {"noise": (B, B, B), "average": (B, None, None)}
    runs = with_verdicts(trained, families, robustness=([blending], [quarter], [quarter]))
    limits = "a longer average was tested in t0 only; not so at a threshold of 1/4 in t1 and t2"
    assert verdict_on(runs)["sentence"] == f"better than noise, in all 3 runs ({limits}){HOLM}"


def test_the_page_says_which_run_tested_what_and_why(trained):
    runs = with_verdicts(trained, {"noise": (B, B, B), "average": (B, B, None)})
    runs[2].manifest.about["untested"] = {"average": "training kept no averages of the weights"}
    runs[1] = replace(runs[1], results=replace(runs[1].results, rows=without_copies(runs[1]), samples=500))
    comparison = build(experiments(runs))
    (entry,) = comparison["experiments"]
    page = html.unescape(render(comparison, "three"))
    assert '<td class="left wrap">not tested <small>training kept no averages of the weights</small></td>' in page
    assert "in all 3 runs (a longer average was not tested in t2)" in page
    units = {line.measure: line.unit for line in lines(entry)}
    assert units["beyond noise"].endswith("plain sampling's")
    assert units["beyond average"].endswith("; in 2 of 3 runs")
    assert units["copies"].endswith("; in 2 of 3 runs")
    # The plug-in distance is biased by the number of samples.
    assert entry["schedules"][0]["effects"]["fd_raw"]["combined"] is None
    assert "not combined" in units["change of fd_raw"]
    assert "2 to 3 replicates" in {text.get_text() for axes in run_forest(comparison).axes for text in axes.texts}


def without_copies(run: Run) -> tuple[RowResult, ...]:
    """The rows of a run that did not count copies."""
    return tuple(
        replace(row, vs_base={name: change for name, change in row.vs_base.items() if name != "f_mem"})
        for row in run.results.rows
    )


def test_residuals_are_combined(trained):
    runs = with_verdicts(trained, {"noise": (B, B, B)})
    effect = build(experiments(runs))["experiments"][0]["schedules"][0]["effects"]["residual_noise"]
    for name in REPLICATES:
        assert effect["runs"][name]["value"] == pytest.approx(-0.02), "of base's distance"
    assert effect["combined"]["replicates"] == 3


def test_comparisons_of_functions_are_shown_and_never_pooled(command, refused, monkeypatch, tmp_path):
    """They have no configuration, so that two networks may be anything; one that was named has no weights either."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    train, real = torch.randn(20, 2), torch.randn(60, 2)
    for seed, identity in enumerate((None, None, "exact")):
        schedules = {"base": Schedule(steps=2), "kts": Schedule(KTS(), steps=2)}
        net = ResidualMLP([2], width=8 + 8 * seed, depth=1)
        options = {"seeds": 40, "families": "none", "features": "raw", "base_seed": seed, "folder": f"f{seed}"}
        compare_schedules(net, schedules, train=train, real=real, identity=identity, **options).report()
    Path("f1/results.json").unlink()
    says(refused("compare", "f0", "f1"), "f1 holds a comparison without results", "Run fm-lightning report f1")
    assert command("report", "f1").status == 0
    shutil.copytree("f0", "cut")
    shutil.rmtree(Evaluation.open("cut").parts[0].path)
    says(refused("compare", "f0", "cut"), "unfinished comparison", "Call compare_schedules() again, with folder='cut'")
    ended = command("compare", "f0", "f1", "f2", "--out", "out")
    assert ended.status == 0, ended.err
    says(ended.out, "Not pooled: f0 has no configuration, so how it was trained is unknown")
    assert len(json.loads(Path("out/compare.json").read_text())["experiments"]) == 3


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
