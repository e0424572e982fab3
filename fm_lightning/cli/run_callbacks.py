"""Callbacks of a command: those that its verb needs are added, and those that cannot work here are refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging

from fm_lightning.callbacks import LossOverTime, SampleWriter, ScheduleTable
from fm_lightning.errors import UserError

_BY_EPOCH = "counts epochs, but training is counted in steps and an epoch may have no end"
# Callback -> why it cannot work here, and what to do instead.
_REFUSED = {
    "GradientAccumulationScheduler": (_BY_EPOCH, "Use --trainer.accumulate_grad_batches N"),
    "StochasticWeightAveraging": (_BY_EPOCH, "Use fm_lightning.callbacks.EMA"),
    "LearningRateFinder": ("needs a module with an attribute lr", "Set --model.optimizer.init_args.lr"),
    "BatchSizeFinder": ("would change the batch size, which is part of the run", "Set --data.init_args.batch_size"),
    "BackboneFinetuning": ("needs a module with an attribute backbone", "Remove it."),
    "SpikeDetection": ("cannot resume a training", "Remove it: a loss that is not finite stops the training anyway."),
}


class LastCheckpoint(ModelCheckpoint):
    """Keeps last.ckpt, from which a run resumes. (Lightning refuses two callbacks of one class and the same intervals.)"""


def missing_callbacks(given: Sequence[Callback], verb: str, trainer: Namespace, folder: Path) -> list[Callback]:
    """The callbacks that the verb needs and the list lacks: a list replaces the configuration's as a whole.

    Args:
        given: the configured callbacks.
        verb: the verb of the command.
        trainer: the trainer's configuration.
        folder: the run's directory of checkpoints.
    """
    saves = verb in ("fit", "run") and trainer.enable_checkpointing is not False
    # Only a checkpoint in the run's directory is resumed from.
    kept = any(isinstance(c, ModelCheckpoint) and c.save_last and _is_at(c.dirpath, folder) for c in given)
    missing: list[Callback] = []
    if saves and not trainer.fast_dev_run and not kept:
        missing.append(LastCheckpoint(dirpath=folder, save_last=True, save_top_k=0))
    for kind, needed in ((ScheduleTable, ("test", "run")), (SampleWriter, ("predict",))):
        if verb in needed and not any(isinstance(callback, kind) for callback in given):
            missing.append(kind())
    return missing


def always_present(given: Sequence[Callback], verb: str) -> list[Callback]:
    """The callback behind a figure that every report has, unless the configuration sets its options."""
    present = any(isinstance(callback, LossOverTime) for callback in given)
    return [LossOverTime()] if verb in ("fit", "run", "test", "validate") and not present else []


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuses callbacks that cannot work with this module, and a second average of the weights.

    Raises:
        UserError: names the callback, and what to use instead.
    """
    for name in (type(callback).__name__ for callback in callbacks):
        if name in _REFUSED:
            why, fix = _REFUSED[name]
            raise UserError(f"{name} {why}.", fix)
    averages = [type(callback).__name__ for callback in callbacks if isinstance(callback, WeightAveraging)]
    if len(averages) > 1:
        raise UserError(f"{' and '.join(averages)} both average the weights.", "Remove one of the two.")


def _is_at(folder: Any, place: Path) -> bool:
    return folder is not None and os.path.realpath(folder) == os.path.realpath(place)
