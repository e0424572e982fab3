"""MemorizationMonitor: which samples are copies of training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from lightning import Trainer

from fm_lightning.callbacks.monitor import PairedMonitor
from fm_lightning.comparison import BASE
from fm_lightning.metrics import MemorizationRate, Reference

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching


class MemorizationMonitor(PairedMonitor[MemorizationRate]):
    """F_mem against exactly the training subset, in the model's own space (see ``MemorizationRate``).

    Logs, per row, ``f_mem`` with its Wilson interval ``f_mem_lo`` and ``f_mem_hi``, ``f_mem_at_0.1`` ... ``f_mem_at_0.5``,
    ``nn_ratio_median``; except for base and floors also the paired change from base (``f_mem_change``, ``_lo``, ``_hi``)
    and ``escaped_same_nn``: of the copies that base makes and this row does not, the share whose nearest training image
    is still the same.

    Args:
        threshold: a sample is a copy below this ratio of the two nearest distances.
    """

    key = "f_mem"

    def __init__(self, threshold: float = 1 / 3) -> None:
        super().__init__()
        self.threshold = threshold

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.training_images = pl_module.data.reference()
        self.reference = Reference(self.training_images)
        self.build()  # too few images are refused before training, not at its first validation

    def build(self) -> MemorizationRate:
        return MemorizationRate(self.reference, self.threshold)

    def extra(self, name: str) -> dict[str, float]:
        values = super().extra(name)
        if values:
            values["escaped_same_nn"] = self.metrics[name].escaped_same_nearest(self.metrics[BASE])
        return values

    def most_copied(self, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Indices and counts of the training images that base copies most often."""
        index, counts = self.metrics[BASE].most_copied(k)
        return index.numpy(), counts.numpy()
