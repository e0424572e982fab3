"""CheckpointSeries and PowerAverages: weights that training keeps, for the families "earlier checkpoint" and "average"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.adapters.checkpoints import CONFIG, DATA
from fm_lightning.adapters.kept_weights import AVERAGES, EARLIER
from fm_lightning.adapters.power_average import exponent, keeps
from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_hash
from fm_lightning.training.checkpoint_io import WholeCheckpointIO
from fm_lightning.training.checks import last_step, only_one


class _KeptWeights(Checkpoint):
    """Keeps weights in ``folder`` of the run's directory, a file ``step-N.ckpt`` for each of some steps."""

    folder: str
    what: str  # in words

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        only_one(self, trainer)

    @rank_zero_only
    def _say_disk(self, trainer: Trainer, module: LightningModule, count: int) -> None:
        """Prints how much disk ``count`` copies of the network's weights will take."""
        size = count * sum(value.nbytes for value in module.net.state_dict().values())  # type: ignore[union-attr]
        amount = f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
        print(f"Keeps {count} {self.what} in {Path(trainer.default_root_dir) / self.folder} ({amount})", flush=True)

    def _write(self, trainer: Trainer, module: LightningModule, content: dict[str, Any]) -> None:
        """Writes a file that holds, besides ``content``, the step, the run's configuration and what the data are."""
        facts = {DATA: module.data.facts, CONFIG: getattr(trainer, "run_config", {})}  # type: ignore[union-attr]
        step = trainer.global_step
        place = Path(trainer.default_root_dir) / self.folder / f"step-{step}.ckpt"
        WholeCheckpointIO().save_checkpoint({"global_step": step, **content, **facts}, place)


class CheckpointSeries(_KeptWeights):
    """Keeps the network at earlier training steps, each a constant factor apart: dense late, where copying begins.

    A schedule that copies less may do no more than training that stopped earlier, so a comparison takes these files as
    a family of trivial manipulations. Each holds the weights that ``test`` would measure at that step (the average,
    where a callback keeps one) and the configuration, so that ``load_network`` opens it. They lie in
    ``checkpoints/earlier/step-N.ckpt`` of the run's directory.

    Args:
        count: number of files, at least 3.
        ratio: factor between the steps of neighbouring files, above 1; 12 files at 1.13 reach back to a quarter of the training.

    Raises:
        UserError: a count or a ratio out of range; at the start of training, a training without a known end or a sharded model.

    Logs nothing.
    """

    folder, what = EARLIER, "earlier checkpoints"

    def __init__(self, count: int = 12, ratio: float = 1.13) -> None:
        if count < 3:
            raise UserError(f"`count={count}` is too few for a curve.", "Keep at least 3 earlier checkpoints.")
        if not 1 < ratio < float("inf"):
            raise UserError(f"`ratio={ratio:g}` must be above 1.", "Choose for example ratio=1.13.")
        self.count, self.ratio = count, ratio
        self._steps: set[int] = set()
        self._saved = 0

    def steps(self, last: int) -> list[int]:
        """Returns the steps to keep, ascending, of a training of ``last`` steps."""
        found = {round(last / self.ratio**k) for k in range(1, self.count + 1)}
        return sorted(step for step in found if 0 < step < last)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = last_step(self, trainer)
        self._steps, self._saved = set(self.steps(last)), trainer.global_step
        if trainer.global_step < last:
            self._say_disk(trainer, pl_module, len(self._steps))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step in self._steps and step != self._saved:
            self._saved = step  # further micro-batches of this step save nothing
            weights = network_weights(trainer, pl_module)
            if trainer.is_global_zero:
                state = {f"net.{name}": value for name, value in weights.items()}
                rate = float(trainer.optimizers[0].param_groups[0]["lr"])
                content = tensor_hash(sorted(state.items()))
                self._write(trainer, pl_module, {"state_dict": state, "hash": content, "learning_rate": rate})


class PowerAverages(_KeptWeights):
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

    folder, what = AVERAGES, "snapshots of weight averages"

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = last_step(self, trainer)
        self._steps = {round(last * k / self.snapshots) for k in range(1, self.snapshots + 1)}
        self._weights = list(pl_module.net.parameters())  # type: ignore[union-attr]
        if not self._averages:
            self._averages = [[p.detach().clone() for p in self._weights] for _ in self._gammas]
        for average in self._averages:  # those of a checkpoint were loaded on the CPU
            average[:] = [mine.to(p.device, p.dtype) for mine, p in zip(average, self._weights, strict=True)]
        if trainer.global_step < last:
            self._say_disk(trainer, pl_module, 2 * self.snapshots)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step == self._updated:
            return  # a further micro-batch of the same step
        self._updated = step
        for average, gamma in zip(self._averages, self._gammas):
            torch._foreach_lerp_(average, self._weights, 1 - keeps(step, gamma))
        if step in self._steps and trainer.is_global_zero:
            self._write(trainer, pl_module, self._snapshot(pl_module))

    def _snapshot(self, pl_module: LightningModule) -> dict[str, Any]:
        net: torch.nn.Module = pl_module.net  # type: ignore[assignment]
        names = [name for name, _ in net.named_parameters()]
        states = [{**net.state_dict(), **dict(zip(names, average))} for average in self._averages]
        averages = [{f"net.{name}": value for name, value in state.items()} for state in states]
        content = tensor_hash(item for state in averages for item in sorted(state.items()))
        return {"sigma_rel": list(self.sigma_rel), "hash": content, "averages": averages}

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


def network_weights(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Returns the network's state dict as a test would measure it now: the average, if a callback keeps one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        model = getattr(callback, "_average_model", None) if isinstance(callback, WeightAveraging) else None
        if model is not None and int(model.n_averaged):
            state = model.module.state_dict()
            return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    return module.net.state_dict()  # type: ignore[union-attr]
