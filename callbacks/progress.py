"""Progress: says at each moment what is being done, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import TaskID
from torch import Tensor

from fm_lightning.comparison.progress import Counter
from fm_lightning.data.batches import SeedBatch, SeedBatches
from fm_lightning.data.samples import say
from fm_lightning.errors import UserError


class Progress(RichProgressBar, Counter):
    """Lightning's rich progress bar, in this project's words, with one line before each stage. Logs nothing.

    Args:
        per_second: how often the training bar is drawn at most. Each time reads the loss, and so waits for the device.
    """

    def __init__(self, per_second: float = 5.0) -> None:
        if not per_second > 0:
            raise UserError(f"Progress: `per_second={per_second:g}` must be positive.", "Use 5, for example.")
        super().__init__(refresh_rate=20)  # its thread looks so often whether to draw
        self.per_second = per_second
        self._drawn = 0.0
        self._loss: Tensor | None = None
        self._bar: TaskID | None = None
        self._batch = 0

    # A batch of seeds is many evaluations of the network: the bar moves with them. Counting waits for no device.

    def _within(self, batch: Any, batch_idx: int, bar: TaskID | None) -> None:
        self._bar, self._batch = bar if isinstance(batch, SeedBatch) else None, batch_idx

    def on_evaluation(self) -> None:
        super().on_evaluation()
        now = time.monotonic()
        if self.progress is not None and self._bar is not None and now - self._drawn >= 1 / self.per_second:
            self._drawn = now
            self.progress.update(self._bar, completed=self._batch + self.done)
            self.refresh()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._within(batch, batch_idx, None if trainer.sanity_checking else self.val_progress_bar_id)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._within(batch, batch_idx, self.test_progress_bar_id)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._within(batch, batch_idx, self.predict_progress_bar_id)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        index = trainer.global_step - 1 if trainer.max_steps > 0 else batch_idx
        if now - self._drawn >= 1 / self.per_second or index + 1 == self.total_train_batches:
            self._drawn = now
            self._loss = outputs["loss"] if isinstance(outputs, dict) else None
            super().on_train_batch_end(trainer, pl_module, outputs, batch, index)

    @property
    def total_train_batches(self) -> int | float:
        """Steps of the whole run, wherever it was resumed; batches of an epoch where the run has no number of steps."""
        steps = self.trainer.max_steps
        return steps if steps > 0 else super().total_train_batches

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        # The loss of the step that is drawn; the logged one is of every log_every_n_steps-th.
        latest = {} if self._loss is None else {"train/loss": float(self._loss)}
        return {**latest, **super().get_metrics(trainer, pl_module)}

    @property
    def validation_description(self) -> str:
        return "Validation"

    @property
    def test_description(self) -> str:
        return "Comparing schedules"

    def follow(self, words: str, batches: SeedBatches) -> Iterator[SeedBatch]:
        """The batches; a bar of their own is shown while they last."""
        bar = self._add_task(len(batches), words) if self.progress is not None and self.is_enabled else None
        for i, batch in enumerate(batches):
            self._bar, self._batch = bar, i
            yield batch
            self._update(bar, i + 1)
        if self.progress is not None and bar is not None:
            self.progress.update(bar, visible=False)

    @property
    def predict_description(self) -> str:
        return "Sampling"

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        data, start = pl_module.data, trainer.global_step
        size = sum(parameter.numel() for parameter in pl_module.net.parameters())
        going_on = f", going on after step {start}" if start else ""
        say(
            f"Training {type(pl_module.net).__name__} ({size:,} parameters) on {len(data.train_split):,} samples for "
            f"{trainer.max_steps:,} steps{going_on}; everything goes to {trainer.default_root_dir}"
        )
        super().on_train_start(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._stop_progress()  # whoever prints next begins on a line of its own

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_predict_end(trainer, pl_module)
        self._stop_progress()
