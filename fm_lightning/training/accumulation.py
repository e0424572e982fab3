"""Gradient accumulation is one number for a whole training."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from fm_lightning.errors import UserError


def check_accumulation(callbacks: Iterable[object]) -> None:
    """Refuses a callback that changes the number of accumulated batches at some epoch.

    A batch of ours is a share of an optimizer step's samples, and an epoch may be the whole training.

    Raises:
        UserError: names the argument of the trainer to use.
    """
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise UserError(
            "GradientAccumulationScheduler counts epochs, and training is counted in steps.",
            "Use Trainer(accumulate_grad_batches=...)",
        )
