"""Trainers and callbacks that cannot work together or with this module, refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler, WeightAveraging

from fm_lightning.errors import UserError


def check_states(callbacks: Callback | Sequence[Callback] | None) -> None:
    """Raises UserError for two callbacks whose states a checkpoint could not tell apart, which Lightning refuses later."""
    given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    keeping = [c for c in given if type(c).state_dict is not Callback.state_dict]
    keys = [callback.state_key for callback in keeping]
    for callback, key in zip(keeping, keys):
        if keys.count(key) > 1:
            saves = " save at the same steps" if isinstance(callback, Checkpoint) else " have equal settings"
            raise UserError(
                f"Two {type(callback).__name__} callbacks{saves}.",
                "Remove one, or change when it acts or what it monitors.",
            )


def check_precision(precision: object) -> None:
    """Refuses weights and states below float32, in which averages of weights and energies lose digits.

    Raises:
        UserError: "bf16-true" or "16-true".
    """
    if str(precision) in ("bf16-true", "16-true"):
        raise UserError(f"`precision={precision}` is too coarse for averages and energies.", "Use bf16-mixed.")


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


def check_average(checkpoint: Mapping[str, Any], callbacks: Iterable[object]) -> None:
    """Refuses to resume from averaged weights as if they were the raw ones.

    Raises:
        UserError: the checkpoint holds an average, and no callback would restore it.
    """
    if "current_model_state" in checkpoint and not any(isinstance(c, WeightAveraging) for c in callbacks):
        raise UserError(
            "The checkpoint holds averaged weights, but no EMA callback is configured.",
            "Add fm_lightning.callbacks.EMA to trainer.callbacks.",
        )


def only_one(callback: Callback, trainer: Trainer) -> None:
    """Raises UserError for two callbacks of one class: they would write the same files, or log under the same names."""
    if sum(type(other) is type(callback) for other in trainer.callbacks) > 1:  # type: ignore[attr-defined]
        raise UserError(f"Only one {type(callback).__name__} is allowed.", "Remove the others.")


def last_step(callback: Callback, trainer: Trainer) -> int:
    """The step at which training ends, from which ``callback`` chooses its steps.

    Raises:
        UserError: a training without a known end.
    """
    last = trainer.estimated_stepping_batches
    if not isinstance(last, int):
        raise UserError(f"{type(callback).__name__} needs to know when training ends.", "Set max_steps or max_epochs.")
    return last
