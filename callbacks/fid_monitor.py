"""FIDMonitor: Fréchet distance of samples to real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning import Trainer

from fm_lightning.callbacks.monitor import PairedMonitor
from fm_lightning.metrics import FeatureExtractor, FrechetDistance, GaussianReference, moments

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching


class FIDMonitor(PairedMonitor[FrechetDistance]):
    """Fréchet distance on the features of ``extractor``, which also names it: only Inception's is called ``fid``.

    Logs, per row, ``{key}`` (e.g. ``fd_digits``), and except for base and floors its paired change from base with a 95 %
    interval (``{key}_change``, ``_lo``, ``_hi``).

    Args:
        extractor: images in the visible space -> features.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor
        self._real: GaussianReference | None = None

    @property
    def key(self) -> str:
        return self.extractor.key

    @property
    def samples(self) -> int:
        """Real images that samples are compared with."""
        return self._real.samples if self._real else 0

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.extractor.to(pl_module.device).eval()
        if self._real is None:
            with torch.no_grad():
                data = pl_module.data
                batches = data.encoded(data.real_split).split(1000)
                features = torch.cat([self.extractor(x.to(pl_module.device)).cpu() for x in batches])
            self._real = GaussianReference(*moments(features), samples=len(features))

    def build(self) -> FrechetDistance:
        assert self._real is not None
        return FrechetDistance(self.extractor, self._real)
