"""SampleWriter: what ``predict`` leaves behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fm_lightning.errors import UserError

SAMPLES = "samples"  # the folder in the run's directory


class SampleWriter(BasePredictionWriter):
    """Writes each predicted batch to ``samples/{row}-{first seed}.npz`` in the run's directory.

    Arrays: ``x1 [B, ...]`` in the model's space, ``images [B, C, H, W]`` uint8 where the data are images, ``kpe``,
    ``displacement``, ``field_energy`` ``[B]``, ``energy [S, B]``, ``times [S + 1]``, ``seeds``, and ``labels`` if there are
    any. Logs nothing.

    Args:
        overwrite: replace files of an earlier prediction.
    """

    def __init__(self, overwrite: bool = False) -> None:
        super().__init__("batch")
        self.overwrite = overwrite

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # Seeds always begin with the same one, so that a second prediction writes the files of the first.
        found = sorted(self._folder(trainer).glob("*.npz")) if stage == "predict" and not self.overwrite else []
        if found:
            raise UserError(
                f"{found[0]} exists, expected a run without samples; type --again to move them aside, or another --name"
            )

    def _folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / SAMPLES

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: Any, prediction: Any, batch_indices: Any, *args: Any
    ) -> None:
        folder = self._folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        for name, trajectory in prediction.items():
            if len(trajectory) == 0:
                continue
            fields = ("x1", "kpe", "displacement", "field_energy", "energy", "times", "seeds", "labels")
            arrays = {f: getattr(trajectory, f).cpu().numpy() for f in fields if getattr(trajectory, f) is not None}
            if pl_module.data.has_pixels:
                arrays["images"] = pl_module.data.to_uint8(trajectory.x1).cpu().numpy()
            path = folder / f"{name}-{int(trajectory.seeds[0]):09d}.npz"
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            print(f"Samples with their energies: {self._folder(trainer)}/*.npz")
