"""What a reader needs to judge a run's numbers and to reproduce them."""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from fm_lightning.comparison.facts import comparison_facts
from fm_lightning.data.base import FlowData
from fm_lightning.training.tracking import AppendingCSVLogger, read_series
from fm_lightning.training.trainer import FlowTrainer


def run_facts(trainer: Trainer, data: FlowData) -> dict[str, Any]:
    """The facts of a comparison, with the run's configuration, training step and history."""
    ours = trainer if isinstance(trainer, FlowTrainer) else None  # any Trainer may run this module
    device = trainer.strategy.root_device
    return comparison_facts(trainer.default_root_dir, data, device, trainer.world_size) | {
        "config": ours.run_config if ours else {},
        "step": (ours and ours.tested_step) or trainer.global_step,
        "train": _history(trainer),
    }


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
