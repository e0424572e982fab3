"""DivergenceWatch: stops a training whose loss or weights are no longer finite, before it overwrites what is good."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from fm_lightning.errors import NotFiniteError


class DivergenceWatch(Callback):
    """Notes a loss that is not finite on the device at every step, and reads the note where the host waits anyway.

    Raises :class:`NotFiniteError` at the next logged step, validation or checkpoint. No checkpoint is written from weights
    that are not finite. Logs nothing. The command line adds it to every training.
    """

    def __init__(self) -> None:
        self._first_bad_step = torch.tensor(-1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        bad = self._first_bad_step.to(loss.device)
        self._first_bad_step = torch.where((bad < 0) & ~loss.isfinite(), torch.full_like(bad, batch.step), bad)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: never
        if every and (batch_idx + 1) % every == 0:
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
        step = int(self._first_bad_step)
        if step >= 0:
            raise NotFiniteError(
                f"The training loss became infinite or NaN at step {step}; the checkpoints before it are kept.",
                "Lower the learning rate (--model.optimizer.init_args.lr) or clip gradients (--trainer.gradient_clip_val 1).",
            )
