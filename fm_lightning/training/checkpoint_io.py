"""Checkpoints that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from fm_lightning.files import replacing


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint next to its place and renames it, so that a kill or a full disk leaves the previous one.

    Lightning writes into the system's temporary folder and moves the file; between file systems that copies over the old
    checkpoint, which a full disk or a kill cuts off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint; addresses such as ``s3://...`` are left to Lightning.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        if "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f".{place.name}.*.tmp"):  # by a killed process; it may be large
            left.unlink(missing_ok=True)
        with replacing(place) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)
