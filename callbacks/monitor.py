"""Monitor: prepares measures from data and device, and logs their numbers in validation.

validation   a metric per row sees every batch, and its numbers are logged
comparison   the measures give columns of every batch for a table on disk; the numbers follow from the columns
report       the measures are recalled without data, and summarize the columns on disk
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from lightning import Callback, Trainer

from fm_lightning.comparison.rows import BASE
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.per_seed import PerSeedMetric
from fm_lightning.training.checks import only_one
from fm_lightning.training.module import FlowMatching
from fm_lightning.trajectory import Trajectory

M = TypeVar("M", bound=PerSeedMetric)


def trajectories(outputs: Any) -> dict[str, Trajectory]:
    """What a step returned, if it is trajectories (the steps of the validation loss return nothing)."""
    if isinstance(outputs, dict) and all(isinstance(value, Trajectory) for value in outputs.values()):
        return outputs
    return {}


class ValidationCallback(Callback):
    """Receives the trajectories of a validation; the sanity check is skipped."""

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """Before the first batch."""

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        """One batch: row name -> trajectory, possibly of no samples."""

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """After the last batch, on every process."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.begin(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not trainer.sanity_checking and (batch := trajectories(outputs)):
            self.update(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.finish(trainer, pl_module)


class Monitor(ValidationCallback, ABC, Generic[M]):
    """Prepares measures, and in validation logs ``val/{row}/{number}`` for each of their numbers.

    Attributes:
        measures: from ``prepare``; none where there is nothing to measure.
        metrics: row name -> a metric per measure, of the latest validation.
        values: row name -> numbers, of the latest validation.
    """

    def __init__(self) -> None:
        self.measures: list[M] = []
        self.metrics: dict[str, list[M]] = {}
        self.values: dict[str, dict[str, float]] = {}

    @abstractmethod
    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """Sets ``measures``, with the references and extractors that all rows share."""

    @abstractmethod
    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[M]:
        """The measures without references, see ``Measure.recalled``.

        Args:
            folder: where ``remember`` wrote.
            fingerprints: of the columns in the table, by the measures' names; what was not measured is left out.
        """

    def pictures(self, pl_module: FlowMatching, base: Columns) -> dict[str, np.ndarray]:
        """What the report shows of the training data, from base's columns; see ``report.pictures``."""
        return {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "predict":
            return
        only_one(self, trainer)  # Lightning would log the mean of two numbers with one name
        self.prepare(trainer, pl_module)

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.metrics = {name: [m.empty().to(pl_module.device) for m in self.measures] for name in pl_module.rows}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        for name, metrics in self.metrics.items():
            for metric in metrics:
                metric.update(batch[name])

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.values = {name: {} for name in self.metrics} if self.measures else {}
        for i, measure in enumerate(self.measures):
            columns: dict[str, Columns] = {name: metrics[i].per_seed() for name, metrics in self.metrics.items()}
            for name, mine in columns.items():
                self.values[name] |= self.numbers(measure, mine, None if name == BASE else columns[BASE])
            self.show(trainer, pl_module, columns)
        for name, values in self.values.items():
            finite = {f"val/{name}/{key}": value for key, value in values.items() if value == value}
            # Values are the same on every process, and no loader's index belongs into their names.
            pl_module.log_dict(finite, add_dataloader_idx=False)

    def numbers(self, measure: M, columns: Columns, base: Columns | None) -> dict[str, float]:
        """The numbers of a row in a validation, from a measure's columns of the row and, unless the row is base, of base."""
        return measure.summarize(columns, base)

    def show(self, trainer: Trainer, pl_module: FlowMatching, columns: dict[str, Columns]) -> None:
        """Sends figures to W&B after a validation, from a measure's columns of each row; called on every process."""


def monitors(trainer: Any) -> list[Monitor]:
    """The trainer's monitors."""
    return [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]
