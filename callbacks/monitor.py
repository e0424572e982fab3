"""Monitor: one measure of samples, in validation, in a comparison, and again from a comparison's table.

validation   a metric per row sees every batch, and its numbers are logged
comparison   ``ScheduleTable`` asks ``measure`` for columns of every batch and keeps them on disk; numbers follow from there
report       ``recall`` what ``remember`` left, then ``summarize`` the columns on disk: nothing is sampled
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from fm_lightning.comparison.rows import BASE
from fm_lightning.metrics import Change
from fm_lightning.metrics.per_seed import Columns, PerSeedMetric
from fm_lightning.trajectory import Trajectory
from fm_lightning.verdicts.residual import Measure, Quality

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching

M = TypeVar("M", bound=PerSeedMetric)


def trajectories(outputs: Any) -> dict[str, Trajectory]:
    """What a step returned, if these are trajectories (the steps of the validation loss return nothing)."""
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
    """A measure that a metric makes of samples.

    In validation it logs ``val/{row}/{number}`` for each number; in a comparison ``ScheduleTable`` logs ``test/...``.

    Attributes:
        metrics: row name -> metric, of the latest validation.
        values: row name -> numbers, of the latest validation.
    """

    floors = True  # whether the measure means something for images that nobody sampled
    collective = False  # whether `measure` is one search of all processes, which all of them have to take part in

    def __init__(self) -> None:
        self.metrics: dict[str, M] = {}
        self.values: dict[str, dict[str, float]] = {}

    # What a measure is

    @property
    @abstractmethod
    def name(self) -> str:
        """Names the measure's columns on disk, e.g. ``neighbours``."""

    @property
    def key(self) -> str | None:
        """The number whose paired change is of interest, e.g. ``f_mem``."""
        return None

    @abstractmethod
    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """What all rows share (references, extractors), before any metric is built."""

    @abstractmethod
    def build(self) -> M:
        """A fresh metric."""

    @property
    def fingerprint(self) -> str:
        """Of the columns, see ``PerSeedMetric``; empty for what every line of a table has anyway."""
        return self.build().fingerprint

    def measure(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """The columns of a batch."""
        return self.build().measure(trajectory)

    @abstractmethod
    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        """A row's numbers from its columns; ``base``: those of plain sampling on the same seeds, except for floors and base."""

    def change(self, here: Columns, there: Columns) -> Change | None:
        """``key`` here minus there on the same seeds, line by line."""
        return None

    def facts(self) -> dict[str, Any]:
        """What the results say beside the rows' numbers, e.g. the threshold of a copy."""
        return {}

    def qualities(self, columns: Columns) -> dict[Measure, Quality]:
        """The distances to real data that may judge, with each seed's contributions; empty for what is no such distance."""
        return {}

    def pictures(self, pl_module: FlowMatching, base: Columns) -> dict[str, np.ndarray]:
        """What the report shows of the training data, from base's columns; see ``report.pictures``."""
        return {}

    def remember(self, folder: Path) -> None:
        """Keeps in ``folder`` what ``summarize`` needs beside the columns."""

    def recall(self, folder: Path, fingerprint: str) -> None:
        """Reads what ``remember`` kept.

        Raises:
            UserError: it is not there.
        """

    # Validation

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage != "predict":
            self.prepare(trainer, pl_module)

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.metrics = {name: self.build().to(pl_module.device) for name in pl_module.rows}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        for name, metric in self.metrics.items():
            metric.update(batch[name])

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        columns = {name: self.lines(metric) for name, metric in self.metrics.items()}
        self.values = {
            name: self.summarize(mine, None if name == BASE else columns[BASE]) for name, mine in columns.items()
        }
        for name, values in self.values.items():
            finite = {f"val/{name}/{key}": value for key, value in values.items() if value == value}
            # Values are the same on every process, and no loader's index belongs into their names.
            pl_module.log_dict(finite, add_dataloader_idx=False)
        self.show(trainer, pl_module, columns)

    def lines(self, metric: M) -> Columns:
        """The columns over all processes, ascending in the seed; collective."""
        return metric.per_seed()

    def show(self, trainer: Trainer, pl_module: FlowMatching, columns: dict[str, Columns]) -> None:
        """Sends what is no number to W&B, after a validation; called on every process."""

    def with_change(self, numbers: dict[str, float], columns: Columns, base: Columns | None) -> dict[str, float]:
        """The numbers, with the change of ``key`` from base and its interval."""
        change = None if base is None else self.change(columns, base)
        if change is None:
            return numbers
        key = self.key
        return numbers | {
            f"{key}_change": change.value,
            f"{key}_change_lo": change.low,
            f"{key}_change_hi": change.high,
        }


def visible(pl_module: FlowMatching, x: torch.Tensor) -> np.ndarray:
    """Samples as a figure wants them: images ``[M, H, W, C]`` uint8, points as they are."""
    if pl_module.data.has_pixels:
        return pl_module.data.to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
    return x.cpu().numpy()


def monitors(trainer: Any) -> list[Monitor]:
    """The trainer's monitors."""
    return [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]
