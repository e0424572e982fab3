"""Averaged weights: which weights a test measures, and what resuming from a checkpoint with an average requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.errors import UserError


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


def network_weights(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Returns the network's state dict as a test would measure it now: the average, if a callback keeps one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        model = getattr(callback, "_average_model", None) if isinstance(callback, WeightAveraging) else None
        if model is not None and int(model.n_averaged):
            state = model.module.state_dict()
            return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    return module.net.state_dict()  # type: ignore[union-attr]


def only_one(callback: Callback, trainer: Trainer) -> None:
    """Raises UserError where two callbacks of the same class would write the same files."""
    if sum(type(other) is type(callback) for other in trainer.callbacks) > 1:  # type: ignore[attr-defined]
        raise UserError(f"Only one {type(callback).__name__} is allowed.", "Remove the others.")


@rank_zero_only
def say_disk(trainer: Trainer, module: LightningModule, what: str, count: int, folder: Path) -> None:
    """Prints how much disk ``count`` copies of the network's weights will take."""
    size = count * sum(value.nbytes for value in module.net.state_dict().values())  # type: ignore[union-attr]
    amount = f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
    print(f"Keeps {count} {what} in {folder} ({amount})", flush=True)
