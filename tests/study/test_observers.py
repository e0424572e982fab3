"""What only observes leaves the trained weights as they are: seen in trainings with and without it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, tiny_config

from fm_lightning import callbacks
from fm_lightning.cli.run_identity import identity, length, training
from fm_lightning.study.observers import _OBSERVERS, averages, observes, what_decides

OURS = "fm_lightning.callbacks"
LIGHTNINGS = "lightning.pytorch.callbacks"
# Those that a list of callbacks may hold next to the tiny run's own.
MORE = {
    f"{OURS}.CheckpointSeries": {"count": 3, "ratio": 1.5},
    f"{OURS}.DivergenceWatch": {},
    f"{OURS}.FIDMonitor": {"extractors": "fd_raw", "unbiased": True},
    f"{OURS}.LogSpacedValidation": {"points": 3, "first": 1, "raw": True},
    f"{OURS}.LossOverTime": {"most": 2},
    f"{OURS}.PowerAverages": {"snapshots": 2},
    f"{OURS}.Progress": {},
    f"{OURS}.SupportMonitor": {"k": [1]},
    f"{OURS}.TrainingThreads": {"threads": 1},
    f"{LIGHTNINGS}.LearningRateMonitor": {},
}
UNTRIED = {"SemanticsMonitor"}  # needs classes, which the tiny run's data lack


def weights(command, name: str, change) -> dict[str, torch.Tensor]:
    """The trained weights of a tiny run whose configuration was changed."""
    ended = command("fit", "-c", tiny_config(Path("changed.yaml"), change), "--name", name)
    assert ended.status == 0, ended.err
    return torch.load(Path("runs") / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def alone(config):
    """The average and the last checkpoint, and one validation at the end."""
    trainer = config["trainer"]
    trainer["callbacks"] = [c for c in trainer["callbacks"] if c["class_path"].endswith(("EMA", "ModelCheckpoint"))]
    trainer.update(val_check_interval=4)


def watched(config):
    """Every observer at once, and validations after each step."""
    config["trainer"]["callbacks"] += [{"class_path": path, "init_args": args} for path, args in MORE.items()]
    config["trainer"].update(val_check_interval=1, limit_val_batches=1)


def test_observers_change_no_weight(command):
    plain, seen = weights(command, "alone", alone), weights(command, "watched", watched)
    assert plain.keys() == seen.keys()
    assert all(torch.equal(plain[name], seen[name]) for name in plain)

    def averaged_less(config):
        config["trainer"]["callbacks"][0]["init_args"]["decay"] = 0.5

    other = weights(command, "other", averaged_less)
    assert any(not torch.equal(plain[name], other[name]) for name in plain)
    tried = {name.rpartition(".")[2] for name in MORE}
    tried |= {"KPEDistribution", "MemorizationMonitor", "SampleGrid", "SampleWriter", "ScheduleTable"}
    assert _OBSERVERS[OURS] - UNTRIED <= tried


def test_each_callback_of_ours_is_decided_about():
    assert _OBSERVERS[OURS] | {"EMA"} == set(callbacks.__all__)
    assert averages({"class_path": f"{OURS}.EMA"})


def test_what_a_run_resumes_with_decides():
    """Options that a directory's run must agree on to be trained on are none that only observe."""
    config = copy.deepcopy(TINY)
    kept = what_decides({**config, "trainer": {**training(config)["trainer"], **length(config)}}, validations=False)
    assert kept["trainer"].keys() == training(config)["trainer"].keys() | length(config).keys()
    kept = what_decides(identity(config), validations=False)
    assert identity(config)["model"].keys() - kept["model"].keys() == {"base_seed"}
    assert kept["data"] == identity(config)["data"]


@pytest.mark.parametrize(
    ("path", "only_observes"),
    [
        (f"{OURS}.FIDMonitor", True),
        (f"{OURS}.fid_monitor.FIDMonitor", True),
        (f"{LIGHTNINGS}.ModelCheckpoint", True),
        (f"{OURS}.EMA", False),
        (f"{LIGHTNINGS}.StochasticWeightAveraging", False),
        (f"{LIGHTNINGS}.EarlyStopping", False),
        ("theirs.FIDMonitor", False),
        ("theirs.fm_lightning.callbacks.FIDMonitor", False),
    ],
)
def test_only_known_classes_observe(path, only_observes):
    assert observes({"class_path": path}) is only_observes
