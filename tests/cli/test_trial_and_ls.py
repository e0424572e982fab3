"""``--trial``: a whole command in a short time. ``ls``: what the runs of a directory are, without loading a library."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tiny_runs import says, tiny_config

from fm_lightning.files import read_json, write_json


def long_run(c):
    c["trainer"]["max_steps"] = 1000
    c["data"]["init_args"]["test_seeds"] = 500
    warmup = {"warmup_steps": 100, "decay": "linear"}
    c["model"]["scheduler"] = {"class_path": "fm_lightning.training.Warmup", "init_args": warmup}


def test_a_trial_is_a_short_run_of_its_own(command, tmp_path):
    file = tiny_config(tmp_path / "long.yaml", long_run)
    ended = command("run", "-c", file, "--trial", 6)
    assert ended.status == 0, ended.err
    run = tmp_path / "runs/tiny-trial"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 6
    assert config["data"]["init_args"]["test_seeds"] == 64
    assert config["model"]["scheduler"]["init_args"] == {"warmup_steps": 1, "decay": "linear", "total_steps": None}
    assert json.loads((run / "results.json").read_text())["step"] == 6
    assert not (tmp_path / "runs/tiny").exists(), "the name stays free for the real run"
    # A second trial replaces the first; a run that is not a trial would be kept.
    assert command("fit", "-c", file, "--trial", 2).status == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny-trial"]
    assert not (run / "results.json").exists()


def test_trials_that_make_no_sense(refused):
    for steps in (0, 1):
        says(refused("fit", "-c", "tiny.yaml", "--trial", steps), f"`trial={steps}` is too short", "Use --trial 20")
    says(refused("test", "-c", "tiny.yaml", "--trial", 20), "test has no --trial.")
    says(refused("fit", "-c", "tiny.yaml", "--trial", "long"), "'long' is not an option")


def test_ls_lists_runs_in_every_state(command, tmp_path):
    assert command("ls").status == 2, "no directory of runs yet"
    assert command("run", "-c", "tiny.yaml").status == 0
    assert command("fit", "-c", "tiny.yaml", "--name", "fitted").status == 0
    # What a kill leaves of a training, and of a comparison.
    killed = Path(shutil.copytree("runs/fitted", "runs/killed"))
    record = read_json(killed / "run.json")
    write_json(killed / "run.json", {k: v for k, v in record.items() if k not in ("trained", "step")})
    half = Path(shutil.copytree("runs/tiny", "runs/half"))
    (half / "results.json").unlink()
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/run.json").write_text("{")
    flipped = Path(shutil.copytree("runs/tiny", "runs/flipped")) / "results.json"
    flipped.write_text(flipped.read_text().replace('"samples": ', '"samples": 1', 1))
    (tmp_path / "runs/thesis").mkdir()
    (tmp_path / "runs/thesis/thesis.tex").touch()
    ended = command("ls")
    assert ended.status == 0
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert set(lines) == {"run", "tiny", "fitted", "killed", "half", "broken", "flipped"}
    says(lines["tiny"], "compared", "4", "%")
    says(lines["fitted"], "trained", "4")
    says(lines["killed"], "training unfinished")
    says(lines["half"], "comparison unfinished", "4")
    says(lines["broken"], "run.json is damaged")
    says(lines["flipped"], "results.json is damaged")
    assert command("ls", "runs/tiny").out.splitlines()[-1].split()[:2] == ["tiny", "compared"]
    says(command("ls", "runs/thesis").out, "No runs in runs/thesis")


def test_ls_refuses_what_it_does_not_take(refused):
    says(refused("ls", "nowhere"), "nowhere does not exist", "fm-lightning ls ROOT")
    says(refused("ls", "a", "b"), "ls takes one directory")
    says(refused("ls", "--root", "a"), "ls takes one directory")


def test_ls_loads_no_library(tmp_path):
    (tmp_path / "runs/a").mkdir(parents=True)
    write_json(tmp_path / "runs/a/run.json", {"step": 3})
    code = (
        "import sys; sys.argv[1:] = ['ls']; from fm_lightning.__main__ import main; main()\n"
        "print(sorted({'torch', 'lightning', 'numpy', 'matplotlib', 'wandb'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-2:] == ["a    started  3", "[]"]
