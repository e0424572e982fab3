"""DivergenceWatch: stops a training whose loss or weights are no longer finite, before it overwrites what is good."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from fm_lightning.errors import NotFiniteError

_AT_MOST = 1000  # losses in memory


class DivergenceWatch(Callback):
    """Keeps the loss of every step on its device, and checks them where the host waits anyway.

    Raises :class:`NotFiniteError` at the next logged step, validation or checkpoint. No checkpoint is written from weights
    that are not finite. Logs nothing. The command line adds it to every training.
    """

    def __init__(self) -> None:
        self._losses: dict[int, Tensor] = {}  # step -> loss, those not yet checked

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        before = self._losses.get(batch.step)  # of an earlier micro-batch
        self._losses[batch.step] = loss if before is None else loss + before
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: never
        if (every and (batch_idx + 1) % every == 0) or len(self._losses) >= _AT_MOST:
            self._stop_if_not_finite()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_not_finite()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        self._stop_if_not_finite()
        if not bool(torch.stack([p.isfinite().all() for p in pl_module.parameters()]).all()):
            raise NotFiniteError(
                f"The weights became infinite or NaN after step {trainer.global_step}; the last good checkpoint is kept.",
                "Lower the learning rate (--model.optimizer.init_args.lr).",
            )

    def _stop_if_not_finite(self) -> None:
        if not self._losses:
            return
        steps, finite = list(self._losses), torch.stack(list(self._losses.values())).isfinite().tolist()
        self._losses = {}
        if not all(finite):
            step = steps[finite.index(False)]
            raise NotFiniteError(
                f"The training loss became infinite or NaN at step {step}; the checkpoints before it are kept.",
                "Lower the learning rate (--model.optimizer.init_args.lr) or clip gradients (--trainer.gradient_clip_val 1).",
            )
