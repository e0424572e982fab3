"""MemorizationMonitor: which samples are copies of training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data import FlowData
from fm_lightning.data.samples import say
from fm_lightning.errors import UserError
from fm_lightning.metrics import Groups, MemorizationRate, Reference, ShardedReference
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.memorization import THRESHOLD, most_copied
from fm_lightning.training.module import FlowMatching


class MemorizationMonitor(Monitor[MemorizationRate]):
    """F_mem against exactly the training subset, in the model's own space (see ``MemorizationRate``).

    Numbers, per row: ``f_mem`` with its Wilson interval ``f_mem_lo`` and ``f_mem_hi``, ``f_mem_at_0.1`` ... ``f_mem_at_0.5``,
    ``nn_ratio_median``; except for base and floors also the paired change from base (``f_mem_change``, ``_lo``, ``_hi``)
    and ``escaped_same_nn``: of the samples that are copies in base and not in this row, the share whose nearest training
    image is the same.

    Args:
        threshold: a sample is a copy below this ratio of the two nearest distances.
        mirrored: whether copies of mirrored training images count; None: if training mirrors them.
        leave_out_duplicates: training images nearer to each other than this share of the median nearest-neighbour distance
            count as one. Their number is printed and logged as ``near_duplicates``.
        k: above 2, ``f_mem_k`` and ``nn_ratio_k_median`` are logged with the k-th nearest image instead of the second.
        divided: whether each process holds a part of the training images, which all processes search together: for training
            images that do not fit next to the network.

    Without training data (``has_training_data``) it prints so and measures nothing.
    """

    def __init__(
        self,
        threshold: float = THRESHOLD,
        mirrored: bool | None = None,
        leave_out_duplicates: float | None = None,
        k: int = 2,
        divided: bool = False,
    ) -> None:
        super().__init__()
        if divided and leave_out_duplicates is not None:
            raise UserError(
                "Near-duplicates cannot be found in training images that are divided among processes.",
                "Remove divided or leave_out_duplicates.",
            )
        self.threshold, self.mirrored, self.leave_out_duplicates, self.k = threshold, mirrored, leave_out_duplicates, k
        self.divided = divided
        self._groups: Groups | None = None

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if not data.has_training_data:
            say("Memorization, its verdicts and the floors are left out: there are no training data.")
            return
        stored, views = data.memorization_reference()
        # Too few images are refused here, before training.
        metric = MemorizationRate(
            self._prepared(stored, trainer, data),
            self.threshold,
            data.flip if self.mirrored is None else self.mirrored,
            self.leave_out_duplicates if self._groups is None else self._groups,
            self.k,
            views,
            say=say,
        )
        if self.leave_out_duplicates is not None:
            self._groups = metric.groups  # found once for training and test
        self.measures = [metric]

    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[MemorizationRate]:
        if MemorizationRate.name not in fingerprints:
            return []
        fingerprint = fingerprints[MemorizationRate.name]
        return [MemorizationRate.recalled(folder, fingerprint, threshold=self.threshold, k=self.k)]

    def _prepared(self, stored: Any, trainer: Trainer, data: FlowData) -> Reference | ShardedReference:
        """On the device as stored, and encoded when read: 50,000 CIFAR images take 150 MB. Latents stay on disk."""
        device = trainer.strategy.root_device
        if self.divided:
            part = stored[trainer.global_rank :: trainer.world_size].to(device)
            return ShardedReference(part, strided=True, device=device, encode=data.encode)
        stored = stored.to(device) if isinstance(stored, Tensor) else stored
        return Reference(stored, device=device, encode=data.encode)

    def pictures(self, pl_module: FlowMatching, base: Columns) -> dict[str, np.ndarray]:
        data = pl_module.data
        if not data.has_pixels:
            return {"points": data.visible(data.reference())} if len(data.shape) == 1 else {}
        index, counts = most_copied(base, self.threshold)
        return {"images": data.visible(data.reference(index)), "counts": counts.numpy()}
