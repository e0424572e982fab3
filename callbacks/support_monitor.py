"""SupportMonitor: how densely real images lie around the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.metrics import Reference
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.support import LocalSupport
from fm_lightning.training.module import FlowMatching


class SupportMonitor(Monitor[LocalSupport]):
    """Support and kernel log density of the samples (see ``LocalSupport``), in the model's space or in an extractor's.

    Numbers, per row: ``knn_{k}_mean``, ``knn_{k}_median``, and the same of ``kde_{b}``.

    Args:
        k: numbers of neighbours.
        bandwidths: of the kernel, in typical nearest-neighbour distances; an empty list saves half the time.
        extractor: of the features that are compared; None compares the samples themselves.
        held_out: whether to compare with the held-out images instead of the training images.

    Raises:
        UserError: before training: more neighbours than images, or a bandwidth out of range.
    """

    def __init__(
        self,
        k: Sequence[int] = (5,),
        bandwidths: Sequence[float] = (1.0,),
        extractor: FeatureExtractor | None = None,
        held_out: bool = False,
    ) -> None:
        super().__init__()
        self.k, self.bandwidths, self.extractor, self.held_out = tuple(k), tuple(bandwidths), extractor, held_out

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data, device = pl_module.data, trainer.strategy.root_device
        split = data.held_out_split if self.held_out else data.train_split
        if self.extractor is None:
            stored = split.x.to(device) if isinstance(split.x, Tensor) else split.x
            reference, space = Reference(stored, device=device, encode=data.encode), FeatureSpace()
        else:
            self.extractor.load()
            self.extractor.to(device).eval()
            space = FeatureSpace(self.extractor, data.to_uint8 if self.extractor.space == "uint8" else None)
            parts = data.encoded(split).split(data.eval_batch_size)
            reference = Reference(torch.cat([space.rows(x.to(device)) for x in parts]))
        self.measures = [LocalSupport(reference, self.k, self.bandwidths, space)]

    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[LocalSupport]:
        name = LocalSupport.name
        return [LocalSupport.recalled(folder, fingerprints[name])] if name in fingerprints else []
