"""CheckpointSeries: the weights at earlier steps, for the family "earlier checkpoint"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from fm_lightning.adapters.checkpoints import CONFIG, DATA
from fm_lightning.adapters.kept_weights import EARLIER
from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_hash
from fm_lightning.training.average import network_weights, only_one, say_disk
from fm_lightning.training.checkpoint_io import WholeCheckpointIO


class CheckpointSeries(Checkpoint):
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        only_one(self, trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.estimated_stepping_batches
        if not isinstance(last, int):
            raise UserError("CheckpointSeries needs to know when training ends.", "Set max_steps or max_epochs.")
        self._steps, self._saved = set(self.steps(last)), trainer.global_step
        if trainer.global_step < last:
            say_disk(
                trainer, pl_module, "earlier checkpoints", len(self._steps), Path(trainer.default_root_dir) / EARLIER
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step in self._steps and step != self._saved:
            self._saved = step  # further micro-batches of this step save nothing
            weights = network_weights(trainer, pl_module)
            if trainer.is_global_zero:
                state = {f"net.{name}": value for name, value in weights.items()}
                checkpoint = {"global_step": step, "state_dict": state, "hash": tensor_hash(sorted(state.items()))}
                checkpoint["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
                checkpoint[DATA] = pl_module.data.facts  # type: ignore[union-attr]
                checkpoint[CONFIG] = getattr(trainer, "run_config", {})
                place = Path(trainer.default_root_dir) / EARLIER / f"step-{step}.ckpt"
                WholeCheckpointIO().save_checkpoint(checkpoint, place)
