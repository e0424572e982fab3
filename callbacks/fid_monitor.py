"""FIDMonitor: Fréchet distance of samples to real images, and what else one pass of features gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import PairedMonitor
from fm_lightning.data.base import content_hash
from fm_lightning.data.images.cache import cache_directory
from fm_lightning.errors import UserError
from fm_lightning.metrics import Change, FeatureExtractor, FrechetDistance, GaussianReference, moments
from fm_lightning.metrics.archive_images import ArchiveImages
from fm_lightning.metrics.features.inception import InceptionFeatures
from fm_lightning.metrics.features.named import named_extractor
from fm_lightning.metrics.inception_scores import SPLITS, cmmd, inception_score, kernel_distance
from fm_lightning.metrics.intervals import Influence, paired_mean_change
from fm_lightning.metrics.precision_recall import NEIGHBOURS, Balls, precision_recall
from fm_lightning.metrics.reference_statistics import kept_features, read_statistics

if TYPE_CHECKING:
    from fm_lightning.data import FlowData
    from fm_lightning.module import FlowMatching


class FIDMonitor(PairedMonitor[FrechetDistance]):
    """Fréchet distance on the features of ``extractor``, which also names it: only Inception's is called ``fid``.

    Logs, per row, ``{key}`` (e.g. ``fid``, ``fd_digits``), and except for base and floors its paired change from base with
    a 95 % interval (``{key}_change``, ``_lo``, ``_hi``); if asked, ``kid_mean``, ``kid_std``, ``precision``, ``recall``,
    ``cmmd``, and on Inception's features, ``isc_mean``, ``isc_std``. Every image passes through the network once.

    Weights are loaded, and downloaded if need be, before training begins.

    Args:
        extractor: an extractor, or the name of its distance: fid, fid_pytorch, fd_clip, fd_dinov2, fd_digits, fd_raw.
        kid: also the kernel distance.
        precision_recall: also precision and recall.
        inception_score: also the Inception score.
        cmmd: also CMMD; comparable with published values on ``CmmdFeatures`` alone.
        statistics: archive with ``mu`` and ``sigma`` to compare with, instead of the datamodule's real images; what needs
            the features of real images takes them from its images ``arr_0``, as ADM's evaluator does.

    Raises:
        UserError: options that need what is not there.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | str,
        kid: bool = False,
        precision_recall: bool = False,
        inception_score: bool = False,
        cmmd: bool = False,
        statistics: str | None = None,
    ) -> None:
        super().__init__()
        self.extractor = named_extractor(extractor) if isinstance(extractor, str) else extractor
        self.kid, self.precision_recall, self.inception_score = kid, precision_recall, inception_score
        self.cmmd, self.statistics = cmmd, statistics
        if inception_score and not isinstance(self.extractor, InceptionFeatures):
            raise UserError(
                f"inception_score given with {self.extractor.key}, expected Inception's features; type extractor: fid"
            )
        self._real: GaussianReference | None = None
        self._real_features: Tensor | None = None
        self._balls: Balls | None = None

    @property
    def key(self) -> str:
        return self.extractor.key

    @property
    def samples(self) -> int:
        """Real images that samples are compared with; 0 where an archive does not say."""
        return self._real.samples if self._real else 0

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data, device = pl_module.data, trainer.strategy.root_device
        self.extractor.load()
        self.extractor.to(device).eval()
        self._read = data.to_uint8 if self.extractor.space == "uint8" else None
        self._on_cpu = trainer.world_size == 1  # gathering over devices needs the features where they are
        if self._real is not None:
            return
        self._check_company(trainer)
        self._check_counts(data)
        try:
            with torch.no_grad():
                width = self._features(data.encoded(data.real_split)[:1].to(device)).shape[1]
        except TypeError as error:  # the datamodule's, which has no images
            raise UserError(f"{self.key} reads images, but {error}; type another extractor, e.g. fd_raw") from error
        if self.statistics:
            self._real = read_statistics(self.statistics, self.extractor.statistics)
            if len(self._real.mean) != width:
                raise UserError(
                    f"statistics {self.statistics} are of {len(self._real.mean)} features, expected {self.key}'s {width}; "
                    "type another archive, or another extractor"
                )
            if self._wants_features:
                self._take(self._archive_features(self.statistics, device), device)
            return

        @torch.no_grad()
        def compute() -> Tensor:
            if self.extractor.costly:
                print(f"Features of {len(data.real_split):,} real images for {self.key}, once, then kept", flush=True)
            batches = data.encoded(data.real_split).split(1000)
            return torch.cat([self._features(x.to(device)).cpu() for x in batches])

        if not self.extractor.costly:
            features = compute()
        else:
            identity = (self.extractor.fingerprint, content_hash(data.real_split.x), data.space)
            features = kept_features(cache_directory(None).parent / "features", identity, compute)
        self._real = GaussianReference(*moments(features), samples=len(features))
        if self._wants_features:
            self._take(features, device)

    @property
    def _wants_features(self) -> bool:
        return self.kid or self.precision_recall or self.cmmd

    def _take(self, features: Tensor, device: torch.device) -> None:
        self._real_features = features
        if self.precision_recall:
            self._balls = Balls(features.to(device))

    def _archive_features(self, path: str, device: torch.device) -> Tensor:
        if self.extractor.space != "uint8":
            raise UserError(
                f"{self.key} given with statistics={path} and kid, precision_recall or cmmd, expected an extractor of 8-bit "
                "images like the archive's; type extractor: fid"
            )
        images = ArchiveImages(path)

        @torch.no_grad()
        def compute() -> Tensor:
            print(f"Features of {len(images):,} images of {path} for {self.key}, once, then kept", flush=True)
            return torch.cat([self.extractor(x.to(device)).cpu() for x in images.batches(500)])

        identity = (self.extractor.fingerprint, images.fingerprint)
        return kept_features(cache_directory(None).parent / "features", identity, compute)

    def _check_company(self, trainer: Trainer) -> None:
        """Of two numbers by one name Lightning would log the mean, and the table show the last."""
        others = [c for c in getattr(trainer, "callbacks", []) if isinstance(c, FIDMonitor) and c is not self]
        for other in others:
            if other.key == self.key:
                raise UserError(f"two FIDMonitors of {self.key} given, expected one; leave the other out")
            for option in ("kid", "precision_recall", "inception_score", "cmmd"):
                if getattr(self, option) and getattr(other, option):
                    raise UserError(
                        f"{option} given to two FIDMonitors ({other.key} and {self.key}), which would log it by one name, "
                        f"expected it in one of them; type {option}: false in the other"
                    )

    @property
    def _needed(self) -> int:
        """The smallest number of samples that all measurements are defined for."""
        return SPLITS if self.inception_score else NEIGHBOURS + 1 if self.precision_recall else 2

    def _check_counts(self, data: FlowData) -> None:
        """Tells before training what would otherwise end the run at its first validation, or at its test."""
        needed = self._needed
        for name, given in {"val_seeds": data.val_seeds, "test_seeds": data.test_seeds}.items():
            if given < needed:
                raise UserError(
                    f"{name}={given} given, expected at least {needed} samples for what FIDMonitor measures; type {name} 1000"
                )

    def _features(self, x: Tensor) -> Tensor:
        return self.extractor(self._read(x) if self._read else x)

    def build(self) -> FrechetDistance:
        assert self._real is not None
        return FrechetDistance(self.extractor, self._real, read=self._read, compute_on_cpu=self._on_cpu)

    def finish(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        self._influences: dict[str, Influence] = {}
        super().finish(trainer, pl_module, stage)

    def change(self, row: str, other: str) -> Change | None:
        if not {row, other} <= self.paired:
            return None
        for name in (row, other):  # an eigenproblem each, and base's is wanted by all rows
            if name not in self._influences:
                self._influences[name] = self.metrics[name].influence(self.lines[name])
        return paired_mean_change(self._influences[row], self._influences[other])

    def extra(self, name: str) -> dict[str, float]:
        values = super().extra(name)
        if not (self.kid or self.precision_recall or self.inception_score or self.cmmd):
            return values
        features = self.lines[name]["features"]
        if len(features) < self._needed:  # a floor has no more samples than images
            return values
        if self.inception_score:
            assert isinstance(self.extractor, InceptionFeatures)
            values |= inception_score(self.extractor.logits(features))
        if self._balls is not None and self._real_features is not None:
            device = self.metrics[name].device
            values |= precision_recall(features.to(device), self._real_features.to(device), self._balls)
        if self._real_features is not None:
            values |= kernel_distance(features, self._real_features) if self.kid else {}
            values |= cmmd(features, self._real_features) if self.cmmd else {}
        return values
