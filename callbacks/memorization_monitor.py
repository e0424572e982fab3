"""MemorizationMonitor: which samples are copies of training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.callbacks.monitor import PairedMonitor
from fm_lightning.comparison.rows import BASE
from fm_lightning.errors import UserError
from fm_lightning.metrics import Groups, MemorizationRate, Reference, find_groups
from fm_lightning.metrics.memorization import ratio

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
        mirrored: count copies of mirrored training images; None: if training mirrors them.
        leave_out_duplicates: count training images as one that lie nearer to each other than this share of the median
            nearest-neighbour distance. Their number is printed and logged as ``near_duplicates``.
        k: above 2, log ``f_mem_k`` and ``nn_ratio_k_median`` with the k-th nearest image instead of the second.
    """

    key = "f_mem"

    def __init__(
        self,
        threshold: float = 1 / 3,
        mirrored: bool | None = None,
        leave_out_duplicates: float | None = None,
        k: int = 2,
    ) -> None:
        super().__init__()
        self.threshold, self.mirrored, self.leave_out_duplicates, self.k = threshold, mirrored, leave_out_duplicates, k
        self._groups: Groups | None = None

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if sum(isinstance(callback, MemorizationMonitor) for callback in getattr(trainer, "callbacks", [])) > 1:
            # Of two numbers by one name Lightning would log the mean, and the table show the last.
            raise UserError("two MemorizationMonitors given, expected one; leave the other out")
        # As stored and on the device: 50 000 CIFAR images are 150 MB so, encoded as they are read.
        self.reference = Reference(data.train_split.x.to(trainer.strategy.root_device), encode=data.encode)
        self.mirror = data.flip if self.mirrored is None else self.mirrored
        if self.leave_out_duplicates is not None and self._groups is None:
            self._groups = find_groups(self.reference, self.leave_out_duplicates, mirrored=self.mirror, say=_say)
            _say(
                f"{self._groups.near_duplicates:,} of {len(self.reference):,} training images are near-duplicates of others "
                f"(nearer than {self._groups.distance:.4g}) and count as one with them"
            )
        equal = self.build().exact_duplicates  # too few images are refused before training, not at its first validation
        if equal:
            twins = " or mirror images of others" if self.mirror else ""
            _say(f"{equal:,} of {len(self.reference):,} training images equal others{twins} and count as one with them")

    def build(self) -> MemorizationRate:
        return MemorizationRate(self.reference, self.threshold, self.mirror, self._groups, self.k)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: the ratio of the two nearest distances, and the index of the nearest image."""
        columns = self.build().measure(x)
        return ratio(columns), columns["nearest"]

    def extra(self, name: str) -> dict[str, float]:
        values = super().extra(name)
        if values:
            values["escaped_same_nn"] = self.metrics[name].escaped_same_nearest(self.lines[name], self.lines[BASE])
        return values

    def most_copied(self, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Indices and counts of the training images that base copies most often."""
        index, counts = self.metrics[BASE].most_copied(self.lines[BASE], k)
        return index.numpy(), counts.numpy()


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
