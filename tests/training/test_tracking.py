"""Where numbers and pictures go: the appending CSV file, and a real offline W&B run read back from its file."""

from __future__ import annotations

import json

import pytest
import yaml
from tiny_runs import tiny_config
from wandb_files import read_wandb

from fm_lightning.training.tracking import AppendingCSVLogger, read_series


def test_csv_appends_and_the_later_row_counts(tmp_path):
    for values in ([(0, 1.0), (1, 2.0), (2, 3.0)], [(2, 30.0), (3, 4.0)]):  # resumed from step 2
        logger = AppendingCSVLogger(str(tmp_path))
        for step, value in values:
            logger.log_metrics({"train/loss": value, "epoch": 0}, step)
    logger.log_metrics({"val/base/f_mem": 0.5}, 3)
    assert read_series(tmp_path / "metrics.csv") == {
        "train/loss": [(0, 1.0), (1, 2.0), (2, 30.0), (3, 4.0)],
        "val/base/f_mem": [(3, 0.5)],
    }
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,name,value"
    assert lines[3:5] == ["2,train/loss,3.0", "2,train/loss,30.0"]


def test_csv_missing_is_an_empty_series(tmp_path):
    assert read_series(tmp_path / "metrics.csv") == {}


def test_a_line_cut_off_by_a_crash_does_not_hide_the_others(tmp_path):
    logger = AppendingCSVLogger(str(tmp_path))
    logger.log_metrics({"train/loss": 1.5}, 0)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "1,train/lo")
    AppendingCSVLogger(str(tmp_path)).log_metrics({"train/loss": 2.5}, 1)
    assert read_series(path)["train/loss"] == [(0, 1.5), (1, 2.5)]


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A digits run with W&B offline: its directory, and all that the run's files say."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("wandb")

    def change(c):
        c["data"] = {
            "class_path": "fm_lightning.data.Digits",
            "init_args": {"n": 20, "batch_size": 16, "eval_batch_size": 16, "val_seeds": 9, "test_seeds": 9},
        }
        c["model"]["net"]["init_args"]["shape"] = [1, 8, 8]
        c["trainer"]["max_steps"] = 2
        c["trainer"]["logger"].append(
            {
                "class_path": "lightning.pytorch.loggers.WandbLogger",
                "init_args": {"offline": True, "project": "fm_lightning-tests"},
            }
        )

    config = tiny_config(folder / "tiny.yaml", change)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setenv("WANDB_SILENT", "true")
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *content: folder)
        cli.main(["fit", "-c", str(config), "--name", "kept"])
        import wandb

        wandb.finish()
        # Resumed, in the same W&B run, and compared.
        cli.main(["run", "-c", str(config), "--name", "kept", "--trainer.max_steps", "4"])
        wandb.finish()
    return folder / "runs" / "kept"


@pytest.fixture(scope="module")
def logged(offline):
    return read_wandb(offline)


def test_wandb_has_the_curves_of_training_and_validation(logged, offline):
    series = read_series(offline / "metrics.csv")
    for name in (
        "train/loss",
        "val/loss",
        "val/base/kpe_mean",
        "val/base/kpe_std",
        "val/base/f_mem",
        "val/base/f_mem_lo",
    ):
        assert logged["history"][name][-1] == pytest.approx(series[name][-1][1]), name
    assert [step for step, _ in series["train/loss"]] == [0, 1, 2, 3]
    assert len(logged["history"]["train/loss"]) == 4, "nothing lost, nothing twice over the resume"


def test_numbers_and_media_of_a_validation_stand_at_one_step(logged):
    steps = {name: found for name, found in logged["steps"].items() if name.startswith("val/")}
    assert {"val/base/f_mem", "val/base/kpe", "val/energy_profile", "val/base/samples", "val/schedules"} <= steps.keys()
    assert set(map(tuple, steps.values())) == {tuple(steps["val/loss"])}


def test_a_comparison_is_in_the_summary_and_leaves_no_curve_of_one_point(logged, offline):
    series = read_series(offline / "metrics.csv")
    for name in ("test/base/f_mem", "test/kts/kpe_early_mean", "test/kts/kpe_late_mean", "test/kts/f_mem_change"):
        assert logged["summary"][name] == pytest.approx(series[name][-1][1]), name
    assert "test/held_out/f_mem" in series
    assert {name for name in logged["history"] if name.startswith("test/")} <= {
        f"test/{name}" for name in ("schedules", "energy_profile", "samples", "frontier", "verdicts", "families")
    }
    assert len(logged["history"]) < 60


def test_both_have_the_same_curves(logged, offline):
    media = {name for name, values in logged["history"].items() if isinstance(values[0], dict)}
    scalars = {name for name in logged["history"] if not name.startswith("_")} - media
    kept = {name for name in read_series(offline / "metrics.csv") if not name.startswith("test/")}
    assert scalars - {"trainer/global_step", "epoch"} == kept


def test_wandb_has_the_energy_histograms(logged):
    histogram = logged["history"]["val/base/kpe"][-1]
    assert histogram["_type"] == "histogram"
    assert sum(histogram["values"]) == 9, "one per sample"
    assert len(histogram["bins"]) == len(histogram["values"]) + 1


@pytest.mark.parametrize("name", ["val/energy_profile", "test/energy_profile", "val/base/samples"])
def test_wandb_has_the_pictures(logged, offline, name):
    image = logged["history"][name][-1]
    assert image["_type"] == "image-file"
    assert image["path"] in logged["files"]
    assert next(offline.rglob(image["path"])).stat().st_size == image["size"] > 0


@pytest.mark.parametrize(
    ("name", "rows"), [("val/schedules", {"base"}), ("test/schedules", {"base", "kts", "kts.true_clock"})]
)
def test_wandb_has_the_table(logged, offline, name, rows):
    table = logged["history"][name][-1]
    assert table["_type"] == "table-file"
    content = json.loads(next(offline.rglob(table["path"])).read_text())
    assert rows <= {row[0] for row in content["data"]}
    assert {"row", "kind", "nfe", "kpe_mean", "f_mem"} <= set(content["columns"])


def test_wandb_has_the_full_config(logged, offline):
    written = yaml.safe_load((offline / "config.yaml").read_text())
    kept = {
        key: value["value"] if isinstance(value, dict) and "value" in value else value
        for key, value in logged["config"].items()
    }
    for key in ("model", "data", "trainer", "seed_everything", "name"):
        assert kept[key] == written[key], key
    assert kept["model"]["test_schedules"]["kts"]["gain"]["init_args"]["beta"] == 0.02


def test_a_resumed_run_is_the_same_wandb_run(logged, offline):
    assert logged["ids"] == {json.loads((offline / "run.json").read_text())["wandb_id"]}
