"""RunRecord: what a run keeps about itself."""

from __future__ import annotations

from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from fm_lightning.adapters.checkpoints import CONFIG
from fm_lightning.cli.configurations import SAVED, sealed
from fm_lightning.cli.run_directory import RunDirectory
from fm_lightning.cli.run_identity import comparison, identity, length, training
from fm_lightning.errors import UserError
from fm_lightning.files import write_whole


class RunRecord(SaveConfigCallback):
    """Keeps the run's directory: configuration, run.json, and the configuration inside every checkpoint and logger."""

    directory: RunDirectory
    plain_config: dict[str, Any]
    wandb_id: str | None = None
    trial: bool = False
    saved_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        sees = {"data": data.fingerprint} if stage in ("fit", "test") and data.has_training_data else {}
        if sees and self.directory.last.exists() and self.directory.record.get("data", sees["data"]) != sees["data"]:
            raise UserError(
                f"{self.directory.path} holds a run on other training data: their content has changed since.",
                "Restore the data, use another --name, or add --again to start over.",
            )
        if trainer.is_global_zero and not self.already_saved:
            # The record comes first: it makes the directory a run, even if a full disk or a kill follows.
            about: dict[str, Any] = {"identity": identity(self.plain_config), **sees}
            if stage == "fit":
                about |= {
                    "training": training(self.plain_config),
                    "max_steps": self.plain_config["trainer"]["max_steps"],
                }
            self.directory.write(**about, **({"trial": True} if self.trial else {}))
            if stage == "fit" or not (self.directory.path / SAVED).exists():
                self._keep_config()
            if self.wandb_id:
                self.directory.write(wandb_id=self.wandb_id)
            for logger in trainer.loggers:
                logger.log_hyperparams(self.plain_config)
        self.already_saved = True

    def _keep_config(self) -> None:
        text = yaml.safe_dump(self.plain_config, sort_keys=False, allow_unicode=True)
        write_whole(self.directory.path / SAVED, sealed(text))

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The evaluation has accepted this configuration by now. The report reads its rows and callbacks from the file.
        if trainer.is_global_zero:
            self._keep_config()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG] = self.plain_config
        self.saved_step = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The comparison uses the last checkpoint, so the final step is saved at any interval of checkpoints.
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        stale = self.saved_step != trainer.global_step or not self.directory.last.exists()
        if trainer.checkpoint_callbacks and not dry and stale:
            trainer.save_checkpoint(self.directory.last, weights_only=False)
        if trainer.is_global_zero and not trainer.interrupted:
            self.directory.write(step=trainer.global_step, trained=length(self.plain_config))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.directory.write(compared=comparison(self.plain_config))
