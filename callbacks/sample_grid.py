"""SampleGrid: the first samples of every row next to their nearest training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torchvision.utils import make_grid

from fm_lightning.callbacks.memorization_monitor import MemorizationMonitor
from fm_lightning.callbacks.monitor import ValidationCallback
from fm_lightning.data.samples import TEST_SEED
from fm_lightning.errors import UserError
from fm_lightning.table.evaluation import FOLDER
from fm_lightning.table.pictures import write_pictures
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.tracking import log_media, wandb_loggers
from fm_lightning.trajectory import Trajectory


class SampleGrid(ValidationCallback):
    """Shows the samples of the first seeds, the same seeds in every row.

    Logs no numbers; to W&B the image ``{stage}/{row}/samples`` (for images). In a comparison they go to
    ``evaluation/pictures``, from which the report is drawn.

    Args:
        count: samples per row.
    """

    def __init__(self, count: int = 24) -> None:
        if count < 1:
            raise UserError(f"count={count} must be positive.", "Pass, for example, 24.")
        self.count = count
        self.samples: dict[str, torch.Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage != "predict":
            # F_mem's own neighbours, so that the training images are in memory once.
            monitors = [callback for callback in trainer.callbacks if isinstance(callback, MemorizationMonitor)]  # type: ignore[attr-defined]
            self.memorization = monitors[0] if monitors else MemorizationMonitor()
            if not monitors:
                self.memorization.prepare(trainer, pl_module)

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.samples = {}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        # Process 0 has the first seeds, in order.
        for name, trajectory in batch.items():
            kept = self.samples.get(name)
            missing = self.count - (0 if kept is None else len(kept))
            if missing:  # else do not wait for the device
                more = trajectory.x1[:missing].cpu()
                self.samples[name] = more if kept is None else torch.cat([kept, more])

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if any(wandb_loggers(trainer)) and data.has_pixels:
            import wandb  # here, because it takes a second

            grids = {name: make_grid(data.to_uint8(x), nrow=8, pad_value=255) for name, x in self.samples.items()}
            log_media(trainer, {f"val/{n}/samples": wandb.Image(g.permute(1, 2, 0).numpy()) for n, g in grids.items()})

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        few = {}
        for name, trajectory in (outputs or {}).items():
            shown = (trajectory.seeds < TEST_SEED + self.count).nonzero()[:, 0]
            if len(shown):
                few[name] = trajectory[shown.to(trajectory.x1.device)]
        # All rows at once, and also where there are none: processes may have to search together.
        none = torch.zeros(0, *pl_module.data.shape, device=pl_module.device)
        pictures = self._pictures(pl_module, torch.cat([t.x1 for t in few.values()] or [none]))
        begin = 0
        for name, trajectory in few.items():
            mine = {kind: values[begin : begin + len(trajectory)] for kind, values in pictures.items()}
            begin += len(trajectory)
            mine["seed"] = trajectory.seeds.cpu().numpy()
            folder = Path(trainer.default_root_dir) / FOLDER
            write_pictures(folder, f"{pl_module.rows[name].key}-{int(mine['seed'][0]):09d}", mine)

    def _pictures(self, pl_module: FlowMatching, x: torch.Tensor) -> dict[str, np.ndarray]:
        if not self.memorization.measures:
            return {"samples": pl_module.data.visible(x)} if len(x) else {}
        (metric,) = self.memorization.measures
        if not len(x) and not metric.collective:
            return {}
        ratio, index = metric.closest(x)
        if not len(x):
            return {}
        nearest = pl_module.data.visible(pl_module.data.reference(index.cpu()))
        return {"samples": pl_module.data.visible(x), "nearest": nearest, "ratio": ratio.cpu().numpy()}
