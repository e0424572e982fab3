"""falsify: what it hands to test, and what it refuses; and that it adds to what test has judged."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml
from tiny_runs import says, tiny_config

from fm_lightning.cli.falsify import arguments
from fm_lightning.errors import UserError


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path / "tiny.yaml")


def written(args):
    file = next(b for a, b in itertools.pairwise(args) if a == "-c" and b.endswith("schedules.yaml"))
    with open(file) as content:
        return yaml.safe_load(content)["model"]


@pytest.mark.parametrize("form", ["plain", "nested"])
def test_the_files_schedules_join_the_configurations_and_are_judged(config, tmp_path, form):
    schedules = {"base": {}, "mine": {"steps": 8}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(schedules if form == "plain" else {"model": {"test_schedules": schedules}}))
    args = arguments(["-c", str(config), "--schedule", str(file), "--threads", "1"], tmp_path)
    assert args[:3] == ["test", "-c", str(config)]
    assert args[-4:] == ["--threads", "1", "--trainer.callbacks.ScheduleTable.families", "all"]
    model = written(args)
    assert model["judge"] == ["mine"]
    assert list(model["test_schedules"]) == ["base", "kts", "mine"], "the base is the configuration's"


def test_a_run_directory_stands_for_its_configuration(config, tmp_path):
    (tmp_path / "config.yaml").write_text(config.read_text())
    assert arguments([f"--config={tmp_path}"], tmp_path)[:3] == ["test", "-c", str(tmp_path / "config.yaml")]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "needs a configuration"),
        (["-c", "CONFIG", "--schedule", "none.yaml"], "none.yaml does not exist. Use --schedule schedules/kts_tau"),
        (["-c", "CONFIG", "--schedule", "empty.yaml"], "holds no 'key: value' lines"),
        (["-c", "CONFIG", "--schedule", "list.yaml"], "holds no 'key: value' lines"),
        (["-c", "CONFIG", "--schedule", "numbers.yaml"], "holds no schedules"),
        (["-c", "CONFIG", "--schedule", "broken.yaml"], "not valid YAML"),
        (["-c", "CONFIG", "--schedule", "model.yaml"], "holds no schedules"),
    ],
)
def test_refused(config, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "numbers.yaml").write_text("a: 1")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "model.yaml").write_text("model: [1]")
    with pytest.raises(UserError, match=message):
        arguments([str(config) if a == "CONFIG" else a for a in args], tmp_path)


@pytest.mark.slow
def test_it_adds_to_what_test_has_judged(command, tmp_path):
    def change(c):
        c["data"]["init_args"] |= {"test_seeds": 200, "eval_batch_size": 200}
        c["model"]["test_schedules"] = {
            "kts": {"steps": 12, "gain": {"class_path": "fm_lightning.flow.KTS", "init_args": {"beta": 0.045}}}
        }
        for callback in c["trainer"]["callbacks"]:
            if callback["class_path"].endswith("ScheduleTable"):
                callback["init_args"] = {}
        raw = {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": "fd_raw"}}
        c["trainer"]["callbacks"].insert(3, raw)

    file = tiny_config(tmp_path / "judged.yaml", change)
    assert command("run", "-c", file).status == 0
    before = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    ended = command("falsify", "-c", "runs/tiny")
    assert ended.status == 0, ended.err
    says(ended.out, "Choosing doses: 6 rows on 500 calibration seeds")  # of the families that are new
    (rows,) = (line for line in ended.out.splitlines() if "samples are there already" in line)
    says(rows, "Comparing", "200 seeds")
    after = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    few, all_ = ({f for v in r["judged"].values() for f in v["families"]} for r in (before, after))
    assert few < all_
    assert {"fewer steps", "constant gain", "noise temperature"} <= all_
