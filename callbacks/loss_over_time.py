"""LossOverTime: the loss in bins of t on training and held-out samples, next to what no network can reach or all should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.comparison.rows import BASE
from fm_lightning.data.batches import SeedBatch
from fm_lightning.errors import UserError
from fm_lightning.files import write_json
from fm_lightning.report.loss_over_time import FILE
from fm_lightning.training.loss_over_time import SIDES, Draws, budget, summary
from fm_lightning.training.loss_over_time import LossOverTime as Measured
from fm_lightning.training.module import FlowMatching


class LossOverTime(Callback):
    """Measures the loss in bins of t on training and on held-out samples, at each validation and before a comparison.

    Next to the network stand two fields at the same (sample, noise, t): the closed form of the training samples, whose loss on
    them is the smallest possible, and the Gaussian with their mean and covariance. It answers whether a loss is good, and
    shows at which times a network knows its training samples. The latest measurement is kept in ``loss_over_time.json`` of
    the run's directory, and the report draws it.

    Logs ``val/loss_train``, ``val/loss_held_out``, and ``val/loss_gap`` (held-out minus training, paired by noise and t) with
    its 95% interval ``val/loss_gap_lo`` and ``val/loss_gap_hi``, each averaged over t.

    Args:
        bins: equal intervals of t.
        most: draws per bin and split, at most; fewer where they would cost more than a tenth of the validation's samples,
            but at least 2.

    Raises:
        UserError: numbers out of range.
    """

    def __init__(self, bins: int = 10, most: int = 100) -> None:
        if bins < 1 or most < 2:
            raise UserError(f"`bins={bins}` and `most={most}` are too few.", "Set bins=10 and most=100, for example.")
        self.bins, self.most = bins, most
        self._measured: Measured | None = None
        self.found: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._measured, self.found = None, {}

    # Weights are exchanged and precision is set by the first batch, in any order of the callbacks.

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            self._measure(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not self.found:
            return
        curves, gap = self.found["curves"], self.found["differences"]["gap"]["all"]
        numbers = {f"loss_{side}": curves[f"network/{side}"]["all"][0] for side in SIDES}
        numbers |= dict(zip(("loss_gap", "loss_gap_lo", "loss_gap_hi"), gap))
        known = {f"val/{name}": value for name, value in numbers.items() if value is not None}
        pl_module.log_dict(known, add_dataloader_idx=False)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._keep(trainer)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and isinstance(batch, SeedBatch) and self._measured is None:
            self._measure(trainer, pl_module)
            self._keep(trainer)

    def _measure(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if not data.has_training_data:
            return
        if self._measured is None:
            row = pl_module.rows.get(BASE)
            per_bin = budget(data.val_seeds, row.schedule.steps if row else 100, self.bins, self.most)
            draws, share = Draws(self.bins, per_bin, pl_module.base_seed), (trainer.global_rank, trainer.world_size)
            self._measured = Measured(data, pl_module.path, draws, data.eval_batch_size, pl_module.device, share)
        measured = self._measured

        def loss(x0: Tensor, x1: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            own = pl_module.dtype  # float64 under 64-true
            return pl_module.loss(x0.to(own), x1.to(own), t.to(own), y)

        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            losses = {("network", side): measured.losses(loss, side) for side in SIDES}
        with torch.no_grad():
            losses |= measured.references
        if trainer.world_size > 1:
            device = pl_module.device
            losses = {k: trainer.strategy.reduce(v.to(device), reduce_op="sum").cpu() for k, v in losses.items()}
        self.found = summary(losses, measured)

    @rank_zero_only
    def _keep(self, trainer: Any) -> None:
        if self.found:
            step = getattr(trainer, "tested_step", None) or trainer.global_step
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, {"step": step, **self.found})
