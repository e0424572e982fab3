"""SupportMonitor: how densely real images lie around the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.errors import OldError
from fm_lightning.metrics import Reference
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.per_seed import Columns
from fm_lightning.metrics.support import LocalSupport
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching


class SupportMonitor(Monitor[LocalSupport]):
    """Support and kernel log density of the samples (see ``LocalSupport``), in the model's space or in an extractor's.

    Numbers, per row: ``knn_{k}_mean``, ``knn_{k}_median``, and the same of ``kde_{b}``.

    Args:
        k: numbers of neighbours.
        bandwidths: of the kernel, in typical nearest-neighbour distances; none saves half the time.
        extractor: of the features that are compared; None: the samples themselves.
        held_out: compare with the held-out images instead of the training images.

    Raises:
        UserError: before training: more neighbours than images, or a bandwidth out of range.
    """

    name = "support"

    def __init__(
        self,
        k: Sequence[int] = (5,),
        bandwidths: Sequence[float] = (1.0,),
        extractor: FeatureExtractor | None = None,
        held_out: bool = False,
    ) -> None:
        super().__init__()
        self.k, self.bandwidths, self.extractor, self.held_out = tuple(k), tuple(bandwidths), extractor, held_out
        self._metric: LocalSupport | None = None

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        if sum(isinstance(callback, SupportMonitor) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise OldError("two SupportMonitors given", "one", "leave the other out")
        data, device = pl_module.data, trainer.strategy.root_device
        split = data.held_out_split if self.held_out else data.train_split
        if self.extractor is None:
            stored = split.x.to(device) if isinstance(split.x, Tensor) else split.x
            reference, space = Reference(stored, device=device, encode=data.encode), FeatureSpace()
        else:
            self.extractor.load()
            self.extractor.to(device).eval()
            space = FeatureSpace(self.extractor, data.to_uint8 if self.extractor.space == "uint8" else None)
            with torch.no_grad():
                read = space.read or (lambda x: x)
                parts = data.encoded(split).split(data.eval_batch_size)
                reference = Reference(torch.cat([self.extractor(read(x.to(device))).flatten(1) for x in parts]))
        self._metric = LocalSupport(reference, self.k, self.bandwidths, space)

    def build(self) -> LocalSupport:
        prepared = self._prepared
        return LocalSupport(prepared.reference, self.k, self.bandwidths, prepared.space)

    @property
    def _prepared(self) -> LocalSupport:
        assert self._metric is not None
        return self._metric

    @property
    def fingerprint(self) -> str:
        return self._prepared.fingerprint

    def measure(self, trajectory: Trajectory) -> dict[str, Tensor]:
        return self._prepared.measure(trajectory)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        found = {name: v.double() for name, v in columns.items() if name.startswith(("knn_", "kde_"))}
        means = {f"{name}_mean": float(v.mean()) for name, v in found.items()}
        return means | {f"{name}_median": float(v.median()) for name, v in found.items()}
