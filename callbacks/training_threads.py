"""TrainingThreads: fewer CPU threads while training than while sampling."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer

from fm_lightning.errors import OldError


class TrainingThreads(Callback):
    """Training on the small batches of a tiny network is fastest on one CPU thread; sampling thousands of seeds is not.

    Args:
        threads: CPU threads while fitting, at least 1; before and after it there are as many as ``--threads`` says.

    Logs nothing.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise OldError(f"TrainingThreads: threads={threads} given", "at least 1", "type e.g. 1")
        self.threads = threads

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._before = torch.get_num_threads()
        if stage == "fit":
            torch.set_num_threads(self.threads)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.set_num_threads(self._before)
