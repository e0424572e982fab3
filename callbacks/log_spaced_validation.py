"""LogSpacedValidation: validates at steps a constant factor apart, where curves over the training time are to be seen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from fm_lightning.callbacks.monitor import monitors, trajectories
from fm_lightning.comparison.rows import BASE
from fm_lightning.data.batches import SeedBatch
from fm_lightning.errors import UserError
from fm_lightning.training.checks import last_step
from fm_lightning.training.loop_state import validate_before_the_next_step
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.tracking import logged_step


def spaced(first: int, last: int, points: int) -> list[int]:
    """Returns the steps, ascending: from ``first`` to ``last``, a constant factor apart up to rounding."""
    return sorted({round(step) for step in np.geomspace(min(first, last), last, points)} | {last})


class LogSpacedValidation(Callback):
    """Validates at logarithmically spaced optimizer steps, the last step included, instead of every ``val_check_interval``.

    A resumed training validates at the same steps; a validation that a kill cut off is repeated.

    Args:
        points: number of validations; fewer where rounding makes two steps equal.
        first: step of the first validation.
        raw: whether to measure the raw weights, too, where a callback averages them: the monitors' numbers for plain sampling
            are then also logged as ``val/raw/{number}``. This samples twice.

    Raises:
        UserError: numbers out of range; when training starts, a training without a known end, or ``raw`` without an average.
    """

    def __init__(self, points: int = 20, first: int = 10, raw: bool = False) -> None:
        if points < 2:
            raise UserError(f"`points={points}` is too few for a curve.", "Set points=20, for example.")
        if first < 1:
            raise UserError(f"`first={first}` must be at least 1.", "Set first=10, for example.")
        self.points, self.first, self.raw = points, first, raw
        self.steps: list[int] = []
        self._validated = 0  # the latest validated step

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        last = last_step(self, trainer)
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if self.raw and not averages:
            raise UserError("Without an average, the validated weights are the raw ones.", "Remove raw, or add EMA.")
        self.steps = spaced(self.first, last, self.points)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        # Counted over all epochs. A resumed loop asks first whether the step of the checkpoint is one to validate.
        trainer.check_val_every_n_epoch = None
        self._set(trainer, bisect_left(self.steps, trainer.global_step))

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._set(trainer, bisect_right(self.steps, trainer.global_step))

    def _set(self, trainer: Trainer, place: int) -> None:
        """Has Lightning validate at the step ``steps[place]``: it counts micro-batches, and hits the first multiple."""
        if self.steps:
            step = self.steps[min(place, len(self.steps) - 1)]
            trainer.val_check_batch = step * trainer.accumulate_grad_batches

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated = trainer.global_step
        if self.raw:
            self._log_raw(trainer, pl_module)

    def _log_raw(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """Measures plain sampling with the raw weights, which the average has made room for by now."""
        requested = monitors(trainer)
        found: dict[str, float] = {}
        metrics = [
            (monitor, measure.empty().to(pl_module.device)) for monitor in requested for measure in monitor.measures
        ]
        for batch in self._seeds(trainer):
            with trainer.precision_plugin.val_step_context():
                outputs = trajectories(pl_module.sample(batch, {BASE: pl_module.rows[BASE]}))
            for _, metric in metrics:
                metric.update(outputs[BASE])
        for monitor, metric in metrics:
            found |= monitor.numbers(metric, metric.per_seed(), None)
        numbers = {f"val/raw/{key}": value for key, value in found.items() if value == value}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=logged_step(trainer))

    def _seeds(self, trainer: Trainer) -> Any:
        loaders: Any = trainer.val_dataloaders
        limits = trainer.num_val_batches
        return (
            batch
            for loader, limit in zip(loaders, limits if isinstance(limits, list) else [limits] * len(loaders))
            for k, batch in enumerate(loader)
            if k < limit and isinstance(batch, SeedBatch)
        )

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        step = trainer.global_step
        if step in self.steps and step != self._validated and trainer.state.fn == "fit" and "loops" in checkpoint:
            validate_before_the_next_step(checkpoint)
