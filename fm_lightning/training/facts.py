"""What a reader needs to judge a run's numbers, and to measure them again."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from fm_lightning.data.base import FlowData
from fm_lightning.training.tracking import AppendingCSVLogger, read_series
from fm_lightning.training.trainer import FlowTrainer

PACKAGES = ("fm-lightning", "torch", "lightning", "torchmetrics", "torch-fidelity", "numpy", "scipy", "scikit-learn")


def run_facts(trainer: Trainer, data: FlowData) -> dict[str, Any]:
    """Name, date, command, versions, hardware, configuration, training step and history, and what the data are."""
    ours = trainer if isinstance(trainer, FlowTrainer) else None  # any Trainer may run this module
    return {
        "name": Path(trainer.default_root_dir).resolve().name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "hardware": hardware(trainer),
        "config": ours.run_config if ours else {},
        "step": (ours and ours.tested_step) or trainer.global_step,
        "space": data.space,
        "shape": list(data.shape),
        "training_images": len(data.train_split) if data.has_training_data else None,
        "skipped_images": data.skipped,
        "train": _history(trainer),
    }


def hardware(trainer: Trainer) -> str:
    """The machine in words."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads x {trainer.world_size} processes"


def _history(trainer: Trainer) -> dict[str, Any]:
    """What was logged in training: losses and the validation's numbers for plain sampling."""
    for logger in trainer.loggers:
        if isinstance(logger, AppendingCSVLogger):
            series = read_series(logger.path)
            wanted = ("train/loss", "val/loss")
            kept = {n: dict(p) for n, p in series.items() if n in wanted or n.startswith("val/base/")}
            steps = sorted({step for points in kept.values() for step in points})
            return {"steps": steps, "series": {name: [p.get(s) for s in steps] for name, p in kept.items()}}
    return {}
