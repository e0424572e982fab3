"""SampleWriter: what ``predict`` leaves behind."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fm_lightning.comparison.rows import BASE
from fm_lightning.errors import UserError
from fm_lightning.files import replacing, write_arrays

SAMPLES = "samples"  # the folder in the run's directory


class SampleWriter(BasePredictionWriter):
    """Writes each predicted batch to ``samples/{row}-{first seed}.npz`` in the run's directory.

    Arrays: ``x1 [B, ...]`` in the model's space, ``images [B, C, H, W]`` uint8 where the data are images, ``kpe``,
    ``displacement``, ``field_energy`` ``[B]``, ``energy [S, B]``, ``times [S + 1]``, ``seeds``, and ``labels`` if there are
    any. Logs nothing.

    Args:
        overwrite: replace files of an earlier prediction.
        npz: also write all images into this one file of the run's directory, as ADM's evaluator takes them: ``arr_0`` uint8
            ``[N, H, W, C]``, in the order of the seeds.

    Raises:
        UserError: samples are there already, an ``npz`` that is no .npz, or one of data that are no images.
    """

    def __init__(self, overwrite: bool = False, npz: str | None = None) -> None:
        super().__init__("batch")
        if npz is not None and not npz.endswith(".npz"):
            raise UserError(f"npz={npz} must end in .npz.", f"Use npz={npz}.npz")
        self.overwrite, self.npz = overwrite, npz

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # Seeds always begin with the same one, so that a second prediction writes the files of the first.
        found = sorted(self._folder(trainer).glob("*.npz")) if stage == "predict" and not self.overwrite else []
        if found:
            raise UserError(f"{found[0]} exists.", "Add --again to move the samples aside, or use another --name.")

        if stage == "predict" and self.npz and not pl_module.data.has_pixels:
            raise UserError(
                f"{type(pl_module.data).__name__} has no images to write to npz={self.npz}.",
                "Give the data an autoencoder, or leave npz out.",
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
            write_arrays(folder / f"{name}-{int(trajectory.seeds[0]):09d}.npz", arrays)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.strategy.barrier()  # the archive holds what all processes have written
        if trainer.is_global_zero:
            if self.npz:
                path = Path(trainer.default_root_dir) / self.npz
                written = write_archive(path, sorted(self._folder(trainer).glob(f"{BASE}-*.npz")))
                print(f"{written:,} images for ADM's evaluator: {path}")
            print(f"Samples with their energies: {self._folder(trainer)}/*.npz")


def write_archive(path: Path, files: Sequence[Path]) -> int:
    """Puts the ``images`` of the files, ``[B, C, H, W]`` each, into one archive; never more than a file's in memory.

    Returns:
        how many there are.
    """
    shapes = [_shape(file) for file in files]
    count, (channels, height, width) = sum(shape[0] for shape in shapes), shapes[0][1:]
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, channels)}
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as out,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for file in files:
            with np.load(file) as found:
                out.write(np.ascontiguousarray(found["images"].transpose(0, 2, 3, 1)).data)
    return count


def _shape(file: Path) -> tuple[int, ...]:
    """Of the images in a file of samples; its header alone is read."""
    with zipfile.ZipFile(file).open("images.npy") as member:
        np.lib.format.read_magic(member)
        return np.lib.format.read_array_header_1_0(member)[0]
