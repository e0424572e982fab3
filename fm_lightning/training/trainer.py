"""FlowTrainer: Lightning's Trainer with the verb ``run``; and what a Trainer knows of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from fm_lightning.comparison.facts import comparison_facts
from fm_lightning.data.base import FlowData
from fm_lightning.errors import UserError
from fm_lightning.training.checkpoint_io import WholeCheckpointIO
from fm_lightning.training.checks import check_states
from fm_lightning.training.tracking import AppendingCSVLogger, read_series


class FlowTrainer(Trainer):
    """Lightning's Trainer; every verb of the command line that needs a trainer is a method.

    Args:
        limit_train_batches: number of batches per epoch (a whole number) or share of them (0.0 to 1.0); null means all.
        limit_val_batches: the same for validation.
        limit_test_batches: number of batches in a comparison, or 1.0 for all; a share below 1.0 is refused.
        limit_predict_batches: the same for ``predict``.
        overfit_batches: number of batches to train and validate on.
        **kwargs: arguments of Lightning's Trainer.

    Raises:
        UserError: a comparison limited to a share of its batches.

    Attributes:
        run_config: the resolved configuration, for results and reports.
        tested_step: the training step of the weights under test.
    """

    run_config: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)
    tested_step: int | None = None
    callbacks: list[Callback]

    # In Lightning's own ``Union[int, float]`` either type may come first, for typing caches unions by what they hold; where
    # float does, a parser reads ``limit_test_batches: 1`` as 1.0, which means all batches.
    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = 1.0,
        limit_val_batches: int | float | None = 1.0,
        limit_test_batches: int | float | None = 1.0,
        limit_predict_batches: int | float | None = 1.0,
        overfit_batches: int | float = 0.0,
        **kwargs: Any,
    ) -> None:
        if limit_test_batches is not None and limit_test_batches < 1:
            problem = f"`limit_test_batches={limit_test_batches}` would compare no whole number of batches."
            raise UserError(problem, "Use a whole number of at least 1, or 1.0 for all.")
        _check_numbers(kwargs)
        check_states(kwargs.get("callbacks"))
        super().__init__(
            limit_train_batches=unless_all(limit_train_batches),
            limit_val_batches=unless_all(limit_val_batches),
            limit_test_batches=unless_all(limit_test_batches),
            limit_predict_batches=unless_all(limit_predict_batches),
            overfit_batches=overfit_batches,
            **kwargs,
        )
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:  # unless a strategy or the user sets another
            self.strategy.checkpoint_io = WholeCheckpointIO()
        if not torch.cuda.is_available():
            # Lightning sets this to 1, for processes that fork before CUDA starts. Each optimizer step then searches the
            # file system for a driver that is not there, as long as a tenth of a small network's step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

    def run(
        self, model: LightningModule, datamodule: LightningDataModule | None = None, ckpt_path: str | None = None
    ) -> None:
        """Trains (or resumes training), then compares the schedules and writes the report.

        Args:
            model: the module.
            datamodule: the data.
            ckpt_path: checkpoint to resume from; by default the run's last one.
        """
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        if self.interrupted:
            return
        self.test(model, datamodule=datamodule, verbose=False)


def unless_all(limit: int | float | None) -> int | float | None:
    """Returns the limit, and None for 1.0 (all batches): 1.0 equals 1 (one batch), and Lightning prints a notice for it."""
    return None if isinstance(limit, float) and limit == 1.0 else limit


def run_facts(trainer: Trainer, data: FlowData) -> dict[str, Any]:
    """The facts of a comparison, with the run's configuration, training step and history."""
    ours = trainer if isinstance(trainer, FlowTrainer) else None  # any Trainer may run this module
    device = trainer.strategy.root_device
    return comparison_facts(trainer.default_root_dir, data, device, trainer.world_size) | {
        "config": ours.run_config if ours else {},
        "step": (ours and ours.tested_step) or trainer.global_step,
        "train": _history(trainer),
    }


def _history(trainer: Trainer) -> dict[str, Any]:
    """What was logged in training: losses and the validation's numbers for plain sampling."""
    for logger in trainer.loggers:
        if isinstance(logger, AppendingCSVLogger):
            series = read_series(logger.path)
            wanted = ("train/loss", "val/loss")
            kept = {n: dict(p) for n, p in series.items() if n in wanted or n.startswith("val/base/")}
            steps = sorted({step for points in kept.values() for step in points})
            return {"steps": steps, "series": {name: [p.get(s) for s in steps] for name, p in kept.items()}}
    return {}


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Refuses numbers that Lightning takes and that then end a training, or let it climb its own loss."""
    for name, example in {"accumulate_grad_batches": 1, "val_check_interval": 1000, "gradient_clip_val": 1.0}.items():
        value = options.get(name)
        least_is_zero = name == "gradient_clip_val"  # which clips nothing
        if isinstance(value, int | float) and (value < 0 or (value == 0 and not least_is_zero)):
            raise UserError(f"`{name}={value}` must be positive.", f"Use for example {name}={example}")
