"""EMA: an exponential moving average of the weights, which validation, test and checkpoints use."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fm_lightning.errors import UserError


class EMA(EMAWeightAveraging):
    """``average <- decay * average + (1 - decay) * weights`` after each optimizer step.

    Lightning's callback, corrected: a checkpoint always holds the average in ``state_dict`` and the
    raw weights in ``current_model_state``, also before the first update, during a validation, and at the end of training.
    Loading a checkpoint for anything but training loads the average.

    Args:
        decay: share of the old average that each step keeps, in [0, 1).
        start_step: step until which the average is a copy of the weights.

    Logs nothing.
    """

    def __init__(self, decay: float = 0.999, start_step: int = 0) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"EMA: `decay={decay:g}` must be at least 0 and below 1.", "Use 0.9999, for example.")
        super().__init__(decay=decay, update_starting_at_step=start_step)
        self._use_buffers = False  # buffers are not learnt, so the average copies them
        self._average = get_ema_multi_avg_fn(decay)  # one fused update of all tensors
        self._exchanged = False  # the module holds the average, and self._average_model the raw weights

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._show_raw(pl_module)  # a second fit continues from the raw weights
            self._latest_update_step = 0  # a new trainer counts from 0; a checkpoint restores the count after this hook
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        # The copy was taken before Lightning gave the weights their precision.
        for mine, theirs in zip(self._average_model.module.parameters(), pl_module.parameters()):
            mine.data = mine.data.to(theirs.dtype)
        self._started = int(self._average_model.n_averaged) > 0
        # Listed once: walking the module tree takes longer than averaging a small network.
        self._pairs = [
            (list(getattr(self._average_model.module, kind)()), list(getattr(pl_module, kind)()))
            for kind in ("parameters", "buffers")
        ]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step <= self._latest_update_step or not self.should_update(step_idx=step - 1):
            return
        assert self._average_model is not None
        if self._started:
            (average, weights), (kept, buffers) = self._pairs
            self._average(average, weights, self._average_model.n_averaged)
            for mine, theirs in zip(kept, buffers):
                mine.copy_(theirs)
            self._average_model.n_averaged += 1
        else:
            self._average_model.update_parameters(pl_module)  # the first update copies
            self._started = True
        self._latest_update_step = step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._show_average(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._show_raw(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_average(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_average(pl_module)  # resuming a finished training calls no on_train_end

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            return
        self._follow_before_start(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            checkpoint["state_dict"], checkpoint["current_model_state"] = (
                checkpoint["current_model_state"],
                checkpoint["state_dict"],
            )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
        else:  # the module now holds the checkpoint's average, so this callback's is outdated
            self._average_model = None
        self._exchanged = False

    def _show_average(self, pl_module: LightningModule) -> None:
        if self._average_model is not None and not self._exchanged:
            self._follow_before_start(pl_module)
            self._swap_models(pl_module)
            self._exchanged = True

    def _show_raw(self, pl_module: LightningModule) -> None:
        if self._average_model is not None and self._exchanged:
            self._swap_models(pl_module)
            self._exchanged = False

    @torch.no_grad()
    def _follow_before_start(self, pl_module: LightningModule) -> None:
        """Sets the average to the current weights until the first update."""
        assert self._average_model is not None
        if not self._exchanged and int(self._average_model.n_averaged) == 0:
            self._average_model.module.load_state_dict(pl_module.state_dict())
