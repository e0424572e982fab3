"""The smallest run that has everything, as a configuration; and how a refusal is read."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

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
        "logger": [{"class_path": "fm_lightning.training.AppendingCSVLogger"}],
        "callbacks": [
            {"class_path": "fm_lightning.callbacks.EMA", "init_args": {"decay": 0.9}},
            {"class_path": "fm_lightning.callbacks.KPEDistribution"},
            {"class_path": "fm_lightning.callbacks.MemorizationMonitor"},
            {"class_path": "fm_lightning.callbacks.SampleGrid"},
            # Choosing doses takes 500 calibration seeds; the tests of verdicts do.
            {"class_path": "fm_lightning.callbacks.ScheduleTable", "init_args": {"families": "none"}},
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


def says(line: str, *words: str) -> None:
    """Each of the words, in this order."""
    assert re.search(".*".join(map(re.escape, words)), line), f"{words} not in: {line}"
