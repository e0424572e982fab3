"""What a checkpoint with averaged weights asks of whoever trains on from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.callbacks import WeightAveraging

from fm_lightning.errors import OldError


def check_average(checkpoint: Mapping[str, Any], callbacks: Iterable[object]) -> None:
    """Refuses to train on from averaged weights as if they were the raw ones.

    Raises:
        UserError: the checkpoint holds an average, and no callback would take it up.
    """
    if "current_model_state" in checkpoint and not any(isinstance(c, WeightAveraging) for c in callbacks):
        raise OldError(
            "the checkpoint holds averaged weights but no EMA callback is configured",
            "one to go on training from the raw weights",
            "add fm_lightning.callbacks.EMA to trainer.callbacks",
        )
