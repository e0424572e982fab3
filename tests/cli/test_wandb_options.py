"""W&B from the shell: a run's group, tags and project, and the trials of a sweep, as W&B's own agent starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_runs import tiny_config
from wandb_files import records, written

ROOT = Path(__file__).parents[2]


def agents_command(lr, decay):
    """The words that W&B's agent makes of the sweep that ships, for one trial."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "configs/wandb_sweep.yaml").read_text())
    values = dict(zip(sweep["parameters"], (lr, decay), strict=True))
    filled = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    filled["program"] = [sweep["program"]]
    words = create_sweep_command(sweep["command"])
    return [w for word in words for w in (filled[word[2:-1]] if word.startswith("${") else [word])]


@pytest.mark.slow
def test_a_trial_of_a_sweep_with_group_and_tags(tmp_path):
    """In a process of its own: W&B keeps where it writes for all runs of a process."""
    program, verb, *words = agents_command(lr=0.002, decay=0.99)
    assert (program, verb) == ("fm-lightning", "run")
    words[words.index("digits")] = str(tiny_config(tmp_path / "tiny.yaml"))
    options = {"offline": "true", "group": "quick", "tags": "[a, b]", "notes": "a try"}
    words += [f"--trainer.logger.WandbLogger.{name}={value}" for name, value in options.items()]
    agent = {"WANDB_SWEEP_ID": "s1", "WANDB_PROJECT": "mine", "WANDB_RUN_ID": "abc123", "WANDB_SILENT": "true"}
    subprocess.run(
        [sys.executable, "-m", "fm_lightning", "fit", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | agent,
        check=True,
        timeout=120,
    )
    run = tmp_path / "runs/tiny-abc123"
    assert json.loads((run / "run.json").read_text())["wandb_id"] == "abc123"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.002
    assert config["trainer"]["callbacks"][0]["init_args"]["decay"] == 0.99
    (file,) = written(run)
    found = [record.run for record in records(file) if record.WhichOneof("record_type") == "run"][-1]
    assert (found.run_id, found.run_group, list(found.tags)) == ("abc123", "quick", ["a", "b"])
    assert (found.project, found.notes, found.display_name) == ("mine", "a try", "tiny-abc123")
