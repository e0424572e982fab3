"""SampleGrid: the first samples of every row beside their nearest training images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Trainer
from torchvision.utils import make_grid

from fm_lightning.callbacks.memorization_monitor import MemorizationMonitor
from fm_lightning.callbacks.monitor import TrajectoryCallback
from fm_lightning.errors import UserError
from fm_lightning.training.tracking import log_media, wandb_loggers
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching


class SampleGrid(TrajectoryCallback):
    """Keeps the samples of the first seeds, the same seeds in every row.

    Logs no numbers; to W&B the image ``{stage}/{row}/samples`` (for images).

    Args:
        count: samples per row.
    """

    def __init__(self, count: int = 24) -> None:
        if count < 1:
            raise UserError(f"SampleGrid: count={count} given, expected at least 1; type e.g. 24")
        self.count = count
        self.samples: dict[str, torch.Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage != "predict":
            # The same neighbours as F_mem's, and the training images once in memory.
            monitors = [callback for callback in trainer.callbacks if isinstance(callback, MemorizationMonitor)]  # type: ignore[attr-defined]
            self.memorization = monitors[0] if monitors else MemorizationMonitor()
            if not monitors:
                self.memorization.prepare(trainer, pl_module)

    def begin(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self.samples = {}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        # Process 0 has the first seeds, in order.
        for name, trajectory in batch.items():
            kept = self.samples.get(name)
            missing = self.count - (0 if kept is None else len(kept))
            if missing:  # else nothing is asked of the device
                more = trajectory.x1[:missing].cpu()
                self.samples[name] = more if kept is None else torch.cat([kept, more])

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        data = pl_module.data
        if any(wandb_loggers(trainer)) and data.has_pixels:
            import wandb

            grids = {name: make_grid(data.to_uint8(x), nrow=8, pad_value=255) for name, x in self.samples.items()}
            log_media(
                trainer, {f"{stage}/{n}/samples": wandb.Image(g.permute(1, 2, 0).numpy()) for n, g in grids.items()}
            )

    def arrays(self, pl_module: FlowMatching) -> dict[str, np.ndarray]:
        """``samples/ROW`` and ``nearest/ROW`` ``[M, H, W, C]`` uint8 (without pixels: ``[M, ...]``) and ``ratio/ROW`` ``[M]``."""
        out = {}
        for name, x in self.samples.items():
            ratio, index = self.memorization.look(x)
            out[f"samples/{name}"] = visible(pl_module, x)
            out[f"nearest/{name}"] = visible(pl_module, pl_module.data.reference(index))
            out[f"ratio/{name}"] = ratio.numpy()
        return out


def visible(pl_module: FlowMatching, x: torch.Tensor) -> np.ndarray:
    """Samples as a figure wants them: images ``[M, H, W, C]`` uint8, what has no pixels as it is."""
    if pl_module.data.has_pixels:
        return pl_module.data.to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
    return x.cpu().numpy()
