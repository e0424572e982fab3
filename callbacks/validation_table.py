"""ValidationTable: how far each row's samples are from base's, and a table of all rows' numbers for W&B."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from torchmetrics import MeanMetric

from fm_lightning.callbacks.monitor import ValidationCallback, monitors
from fm_lightning.callbacks.wandb_media import log_table
from fm_lightning.comparison.results import RowResult
from fm_lightning.comparison.rows import BASE
from fm_lightning.training.tracking import wandb_loggers
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching


class ValidationTable(ValidationCallback):
    """Logs ``val/{row}/rms_to_base`` and, to W&B, a table of all rows with the monitors' numbers.

    ``rms_to_base`` is the root mean square distance per dimension to the base samples of the same seeds, in the unit of the
    sample space.
    """

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        # Trajectories are finite; to ask again would wait for the device at every row.
        self._squares = {
            name: MeanMetric(nan_strategy="disable").to(pl_module.device) for name in pl_module.rows if name != BASE
        }
        self._nfe: dict[str, int] = {}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        self._nfe = {name: trajectory.nfe for name, trajectory in batch.items()}
        for name, metric in self._squares.items():
            square = (batch[name].x1 - batch[BASE].x1).square().flatten(1).mean(1)
            metric.update(square, torch.ones_like(square))

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self._rms = {name: float(metric.compute().sqrt()) for name, metric in self._squares.items()}
        pl_module.log_dict({f"val/{n}/rms_to_base": v for n, v in self._rms.items()}, add_dataloader_idx=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or not any(wandb_loggers(trainer)):
            return
        rows = []
        for name, row in pl_module.rows.items():
            numbers = {k: v for m in monitors(trainer) for k, v in m.values.get(name, {}).items()}
            numbers |= {"rms_to_base": self._rms[name]} if name in self._rms else {}
            nfe = self._nfe.get(name, 0)
            rows.append(RowResult(name, row.kind, label=row.label(name), of=row.of, nfe=nfe, metrics=numbers))
        log_table(trainer, rows, "val")
