"""PowerAverages: averages of the weights from which any other length follows after training, for the family "average"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from fm_lightning.adapters.checkpoints import CONFIG, DATA
from fm_lightning.adapters.kept_weights import AVERAGES
from fm_lightning.adapters.power_average import exponent, keeps
from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_hash
from fm_lightning.training.average import only_one, say_disk
from fm_lightning.training.checkpoint_io import WholeCheckpointIO


class PowerAverages(Checkpoint):
    """Keeps two power-function averages of the network's weights and saves both at regular steps (arXiv 2312.02696).

    A longer average of the weights copies less, without any change of the sampler, so a comparison takes it as a family
    of trivial manipulations. The snapshots lie in ``checkpoints/averages/step-N.ckpt`` of the run's directory. What
    ``test`` measures does not change: that is ``EMA``'s average where there is one, else the raw weights.

    Args:
        sigma_rel: the two lengths, standard deviations as shares of the training so far, each above 0 and at most 0.288.
        snapshots: number of files, at equal distances; fewer than 10 make the lengths in between inexact.

    Raises:
        UserError: lengths out of range or equal, fewer than 2 snapshots; when training starts, one without a known end.

    Logs nothing.
    """

    def __init__(self, sigma_rel: tuple[float, float] = (0.05, 0.1), snapshots: int = 10) -> None:
        if len(set(sigma_rel)) != 2:
            raise UserError(
                f"`sigma_rel={tuple(sigma_rel)}` is not two lengths.", "Pass two different ones: (0.05, 0.1)."
            )
        if snapshots < 2:
            raise UserError(f"`snapshots={snapshots}` is too few.", "Save at least 2; 10 make all lengths exact.")
        self.sigma_rel, self.snapshots = tuple(sigma_rel), snapshots
        self._gammas = [exponent(length) for length in self.sigma_rel]
        self._averages: list[list[Tensor]] = []
        self._steps: set[int] = set()
        self._updated = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        only_one(self, trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.estimated_stepping_batches
        if not isinstance(last, int):
            raise UserError("PowerAverages needs to know when training ends.", "Set max_steps or max_epochs.")
        self._steps = {round(last * k / self.snapshots) for k in range(1, self.snapshots + 1)}
        self._weights = list(pl_module.net.parameters())  # type: ignore[union-attr]
        if not self._averages:
            self._averages = [[p.detach().clone() for p in self._weights] for _ in self._gammas]
        for average in self._averages:  # those of a checkpoint were loaded on the CPU
            average[:] = [mine.to(p.device, p.dtype) for mine, p in zip(average, self._weights, strict=True)]
        if trainer.global_step < last:
            folder = Path(trainer.default_root_dir) / AVERAGES
            say_disk(trainer, pl_module, "snapshots of weight averages", 2 * self.snapshots, folder)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step == self._updated:
            return  # a further micro-batch of the same step
        self._updated = step
        for average, gamma in zip(self._averages, self._gammas):
            torch._foreach_lerp_(average, self._weights, 1 - keeps(step, gamma))
        if step in self._steps and trainer.is_global_zero:
            place = Path(trainer.default_root_dir) / AVERAGES / f"step-{step}.ckpt"
            WholeCheckpointIO().save_checkpoint(self._snapshot(trainer, pl_module, step), place)

    def _snapshot(self, trainer: Trainer, pl_module: LightningModule, step: int) -> dict[str, Any]:
        net: torch.nn.Module = pl_module.net  # type: ignore[assignment]
        names = [name for name, _ in net.named_parameters()]
        states = [{**net.state_dict(), **dict(zip(names, average))} for average in self._averages]
        averages = [{f"net.{name}": value for name, value in state.items()} for state in states]
        content = tensor_hash(item for state in averages for item in sorted(state.items()))
        facts: dict[str, Any] = {"global_step": step, "sigma_rel": list(self.sigma_rel), "hash": content}
        facts |= {DATA: pl_module.data.facts, CONFIG: getattr(trainer, "run_config", {})}  # type: ignore[union-attr]
        return {**facts, "averages": averages}

    def state_dict(self) -> dict[str, Any]:
        return {"sigma_rel": list(self.sigma_rel), "averages": self._averages, "updated": self._updated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["sigma_rel"] != list(self.sigma_rel):
            lengths = tuple(state_dict["sigma_rel"])
            raise UserError(
                f"The training so far kept averages of other lengths ({lengths}, now {self.sigma_rel}).",
                f"Set sigma_rel={lengths}.",
            )
        self._averages, self._updated = state_dict["averages"], state_dict["updated"]
