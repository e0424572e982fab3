"""FlowTrainer: Lightning's Trainer with the verb ``run``."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningDataModule, LightningModule, Trainer


class FlowTrainer(Trainer):
    """Lightning's Trainer; every verb of the command line that needs a trainer is a method.

    Attributes:
        run_config: the resolved configuration, for results and reports.
        tested_step: the training step of the weights under test.
    """

    run_config: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)
    tested_step: int | None = None
    callbacks: list[Callback]

    def run(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Trains (or goes on training), then compares the schedules and writes the report.

        Args:
            model: the module.
            datamodule: the data.
            ckpt_path: checkpoint to go on from; by default the run's last one.
        """
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        if self.interrupted:
            return
        self.test(model, datamodule=datamodule, verbose=False)
