"""ScheduleTable: all rows side by side, with what the controls allow to be said; and the report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from torchmetrics import MeanMetric

from fm_lightning.callbacks.collect import collect, save
from fm_lightning.callbacks.monitor import TrajectoryCallback
from fm_lightning.comparison.rows import BASE
from fm_lightning.training.tracking import log_media, wandb_loggers
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching


class ScheduleTable(TrajectoryCallback):
    """Gathers what the other callbacks measured into one table.

    Logs, per row, ``rms_to_base`` (root mean square distance per dimension to the base samples of the same seeds, in the unit
    of the sample space); to W&B the table ``{stage}/schedules``. After a test it writes ``results.json``, ``results.csv``,
    ``arrays.npz`` and ``report.html`` into the run's directory and prints the table and its verdicts.
    """

    def begin(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self.started = time.time()
        self.nfe: dict[str, int] = {}
        self.squares = {
            # Trajectories are finite; to ask again would wait for the device at every row.
            name: MeanMetric(nan_strategy="disable").to(pl_module.device)
            for name, row in pl_module.rows.items()
            if row.kind != "floor" and name != BASE
        }

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        self.nfe = {name: trajectory.nfe for name, trajectory in batch.items()}
        for name, metric in self.squares.items():
            square = (batch[name].x1 - batch[BASE].x1).square().flatten(1).mean(1)
            metric.update(square, torch.ones_like(square))

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self.rms = {name: float(metric.compute().sqrt()) for name, metric in self.squares.items()}
        pl_module.log_dict({f"{stage}/{n}/rms_to_base": v for n, v in self.rms.items()}, add_dataloader_idx=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._wandb(trainer, collect(trainer, pl_module, self, "val")[0], "val")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        results, arrays = collect(trainer, pl_module, self, "test")  # every process takes part: metrics are gathered
        self._wandb(trainer, results, "test")
        if trainer.is_global_zero:
            save(trainer.default_root_dir, results, arrays)

    def _wandb(self, trainer: Trainer, results: dict, stage: str) -> None:
        if any(wandb_loggers(trainer)):
            import wandb

            names = sorted({key for row in results["rows"] for key in row["metrics"]})
            table = wandb.Table(columns=["row", "kind", "of", "label", "nfe", *names])
            for row in results["rows"]:
                head = [row[key] for key in ("name", "kind", "of", "label", "nfe")]
                table.add_data(*head, *(row["metrics"].get(name) for name in names))
            log_media(trainer, {f"{stage}/schedules": table})
