"""Every configuration that ships is one that the command accepts."""

import re
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[1] / "configs"
ENCODE = sorted(CONFIGS.glob("encode_*.yaml"))  # tests/data/latents/test_encode_command.py
WANDB = ("wandb.yaml", "wandb_sweep.yaml")  # the sweep: tests/cli/test_wandb_options.py
RUNS = sorted(path for path in CONFIGS.glob("*.yaml") if path.name not in WANDB and path not in ENCODE)
ADDED = [CONFIGS / "wandb.yaml", *sorted((CONFIGS / "schedules").glob("*.yaml"))]


def printed(command, *args):
    """The configuration as the command understood it; all classes and arguments are looked up on the way."""
    ended = command("fit", *args, "--print_config")
    assert ended.status == 0, ended.err
    return yaml.safe_load(ended.out)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run(command, path):
    config = printed(command, "-c", path)
    assert config["name"] == path.stem
    text = path.read_text()
    assert re.search(f"fm-lightning (run|test|study) -c configs/{path.name}", text), "says how to run it"
    assert "hours" in text or "minutes" in text, "says how long it takes"


@pytest.mark.parametrize("path", ADDED, ids=lambda path: path.stem)
def test_an_addition(command, path):
    added = yaml.safe_load(path.read_text())
    config = printed(command, "-c", CONFIGS / "digits.yaml", "-c", path)
    if "model" in added:
        assert set(config["model"]["test_schedules"]) >= set(added["model"]["test_schedules"])
    else:
        assert any("WandbLogger" in logger["class_path"] for logger in config["trainer"]["logger"])
