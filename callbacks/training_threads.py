"""TrainingThreads: fewer CPU threads while training than while sampling."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer

from fm_lightning.errors import UserError


class TrainingThreads(Callback):
    """Sets the number of CPU threads while training: a tiny network trains fastest on one, but samples faster on more.

    Args:
        threads: number of CPU threads in training, at least 1; afterwards the previous number is restored.

    Logs nothing.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise UserError(f"TrainingThreads: `threads={threads}` must be positive.", "Use 1, for example.")
        self.threads = threads

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._before = torch.get_num_threads()
        if stage == "fit":
            torch.set_num_threads(self.threads)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.set_num_threads(self._before)
