"""TrajectoryMonitor: one metric per schedule, in validation and in test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lightning import Callback, Trainer
from torch import Tensor

from fm_lightning.comparison.rows import BASE
from fm_lightning.metrics import Change
from fm_lightning.metrics.per_seed import PairedMetric, PerSeedMetric
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching

M = TypeVar("M", bound=PerSeedMetric)
P = TypeVar("P", bound=PairedMetric)


def trajectories(outputs: Any) -> dict[str, Trajectory]:
    """What a step returned, if these are trajectories (the steps of the validation loss return nothing)."""
    if isinstance(outputs, dict) and all(isinstance(value, Trajectory) for value in outputs.values()):
        return outputs
    return {}


class TrajectoryCallback(Callback):
    """Receives batches of trajectories in validation and test alike; the sanity check is skipped."""

    def begin(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        """Before the first batch; ``stage`` is "val" or "test"."""

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        """One batch: row name -> trajectory, possibly of no samples."""

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        """After the last batch, on every process."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.begin(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.begin(trainer, pl_module, "test")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not trainer.sanity_checking and (batch := trajectories(outputs)):
            self.update(trainer, pl_module, batch)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        self.update(trainer, pl_module, trajectories(outputs))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.finish(trainer, pl_module, "test")


class TrajectoryMonitor(TrajectoryCallback, ABC, Generic[M]):
    """Builds a metric per row, feeds it, and logs ``{val|test}/{row}/{metric}`` for each number that it computes.

    Attributes:
        metrics: row name -> metric, of the latest stage.
        values: row name -> computed numbers, of the latest stage.
    """

    floors = True  # whether the metric means something for images that nobody sampled

    def __init__(self) -> None:
        self.metrics: dict[str, M] = {}
        self.values: dict[str, dict[str, float]] = {}

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """What all rows share (references, extractors), before any of them is built."""

    @abstractmethod
    def build(self) -> M:
        """A fresh metric."""

    def show(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        """Sends what is no number to W&B; called on every process."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage != "predict":
            self.prepare(trainer, pl_module)

    def begin(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        rows = pl_module.rows
        self.metrics = {
            name: self.build().to(pl_module.device) for name, row in rows.items() if self.floors or row.kind != "floor"
        }

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        for name, metric in self.metrics.items():
            metric.update(batch[name])

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self.values = {name: {**metric.compute(), **self.extra(name)} for name, metric in self.metrics.items()}
        for name, values in self.values.items():
            finite = {f"{stage}/{name}/{key}": value for key, value in values.items() if value == value}
            # Values are the same on every process, and no loader's index belongs into their names.
            pl_module.log_dict(finite, add_dataloader_idx=False)
        self.show(trainer, pl_module, stage)

    def extra(self, name: str) -> dict[str, float]:
        """Numbers that need more than the row's own metric, e.g. its change from base."""
        return {}


class PairedMonitor(TrajectoryMonitor[P]):
    """A monitor whose metric can also be compared seed by seed: ``metric.change(here, there)``.

    Logs besides, for each row but base and the floors, ``{key}_change`` from base with its 95 % interval
    ``{key}_change_lo`` and ``{key}_change_hi``.
    """

    @property
    @abstractmethod
    def key(self) -> str:
        """The number that changes."""

    def begin(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        super().begin(trainer, pl_module, stage)
        self.paired = {name for name, row in pl_module.rows.items() if row.kind != "floor"}
        self.lines: dict[str, dict[str, Tensor]] = {}

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self.lines = {name: self.metrics[name].per_seed() for name in self.metrics}  # every process takes part
        super().finish(trainer, pl_module, stage)

    def change(self, row: str, other: str) -> Change | None:
        """The number in one row minus that in another; None where a floor takes part (it has no seeds)."""
        if {row, other} <= self.paired:
            return self.metrics[row].change(self.lines[row], self.lines[other])
        return None

    def extra(self, name: str) -> dict[str, float]:
        change = None if name == BASE else self.change(name, BASE)
        if change is None:
            return {}
        return {
            f"{self.key}_change": change.value,
            f"{self.key}_change_lo": change.low,
            f"{self.key}_change_hi": change.high,
        }
