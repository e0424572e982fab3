"""Tiny runs through the real command line, in this process: importing Lightning anew takes seconds."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

# Networks of width 16 gain nothing from threads, and timings of two cores depend on them.
torch.set_num_threads(1)
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed_everything": 0,
    "threads": 1,
    "data": {
        "class_path": "fm_lightning.data.Toy2D",
        "init_args": {
            "n": 24,
            "batch_size": 16,
            "eval_batch_size": 8,
            "val_seeds": 13,
            "test_seeds": 13,
            "predict_seeds": 5,
        },
    },
    "model": {
        "net": {"class_path": "fm_lightning.nets.ResidualMLP", "init_args": {"shape": [2], "width": 16, "depth": 1}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.004}},
        "val_schedules": {"base": {"steps": 4}},
        "test_schedules": {
            "base": {"steps": 4},
            "kts": {
                "steps": 4,
                "gain": {"class_path": "fm_lightning.flow.KTS", "init_args": {"alpha": 0.02, "beta": 0.02}},
            },
        },
    },
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 4,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 3,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": [{"class_path": "fm_lightning.tracking.AppendingCSVLogger"}],
        "callbacks": [
            {"class_path": "fm_lightning.callbacks.EMA", "init_args": {"decay": 0.9}},
            {"class_path": "fm_lightning.callbacks.KPEDistribution"},
            {"class_path": "fm_lightning.callbacks.MemorizationMonitor"},
            {"class_path": "fm_lightning.callbacks.SampleGrid"},
            {"class_path": "fm_lightning.callbacks.ScheduleTable"},
            {"class_path": "fm_lightning.callbacks.SampleWriter"},
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {
                    "filename": "step-{step}",
                    "auto_insert_metric_name": False,
                    "every_n_train_steps": 2,
                    "save_last": True,
                    "save_top_k": -1,
                },
            },
        ],
    },
}


def tiny_config(path: Path, change: Callable[[dict[str, Any]], object] = lambda config: None) -> Path:
    """Writes the tiny configuration, changed, and returns its path."""
    config = copy.deepcopy(TINY)
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """``command("fit", "-c", ...)`` as typed in an empty directory that has the configuration tiny.yaml."""
    from fm_lightning.__main__ import main

    monkeypatch.chdir(tmp_path)
    tiny_config(tmp_path / "tiny.yaml")

    def run(*args: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["fm-lightning", *map(str, args)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
        return Ended(status, *capfd.readouterr())

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Comparisons write everything but report.html, whose figures take seconds."""
    monkeypatch.setattr("fm_lightning.report.page.write_report", lambda folder: Path(folder) / "report.html")


@pytest.fixture
def listing(tmp_path):
    """A function: every file below the working directory with its content and time, to see that nothing changed."""

    def look() -> dict[str, tuple[int, bytes]]:
        files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(tmp_path)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files} | {
            str(path.relative_to(tmp_path)) + "/": (0, b"") for path in tmp_path.rglob("*") if path.is_dir()
        }

    return look


@pytest.fixture
def refused(command, listing):
    """Runs a command that must be refused: status 2, one line, nothing changed; returns the line."""

    def run(*args: object) -> str:
        before = listing()
        ended = command(*args)
        assert ended.status == 2, ended
        lines = ended.err.splitlines()
        assert len(lines) == 1, ended.err
        assert lines[0].startswith("fm-lightning: ")
        assert len(lines[0]) < 420, lines[0]
        assert "Traceback" not in ended.out + ended.err
        assert listing() == before, "nothing is moved, made or overwritten"
        return lines[0]

    return run


def says(line: str, *words: str) -> None:
    """Each of the words, in this order."""
    assert re.search(".*".join(map(re.escape, words)), line), f"{words} not in: {line}"
