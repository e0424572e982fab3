"""FIDMonitor: Fréchet distance of samples to real images, and what else one pass of features gives."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data.images.cache import cache_directory
from fm_lightning.errors import OldError
from fm_lightning.metrics import Change, FeatureExtractor, FrechetDistance, GaussianReference, moments
from fm_lightning.metrics.archive_images import ArchiveImages
from fm_lightning.metrics.extrapolated import extrapolated_distance
from fm_lightning.metrics.features.inception import InceptionFeatures
from fm_lightning.metrics.features.named import named_extractor
from fm_lightning.metrics.inception_scores import SPLITS, cmmd, inception_score, kernel_distance
from fm_lightning.metrics.intervals import Influence, paired_mean_change
from fm_lightning.metrics.kernel_distance import KernelReference
from fm_lightning.metrics.per_seed import Columns, check_same_seeds, fingerprint
from fm_lightning.metrics.precision_recall import NEIGHBOURS, Balls, precision_recall
from fm_lightning.metrics.reference_statistics import kept_features, read_statistics
from fm_lightning.table.parts import compact
from fm_lightning.verdicts.residual import Measure, Quality

if TYPE_CHECKING:
    from fm_lightning.data import FlowData
    from fm_lightning.training.module import FlowMatching


class FIDMonitor(Monitor[FrechetDistance]):
    """Fréchet distance on the features of ``extractor``, which also names it: only Inception's is called ``fid``.

    Numbers, per row: ``{key}`` (e.g. ``fid``, ``fd_digits``), and except for base and floors its paired change from base with
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
            raise OldError(
                f"inception_score given with {self.extractor.key}", "Inception's features", "type extractor: fid"
            )
        self._real: GaussianReference | None = None
        self._real_features: Tensor | None = None
        self._balls: Balls | None = None
        # Of one row (its distance and its change need it) and of base, with whose features they are: named, not kept.
        self._latest: tuple[weakref.ref[Tensor], Influence] | None = None
        self._base: tuple[weakref.ref[Tensor], Influence] | None = None
        self._kernel: KernelReference | None = None
        self._device = torch.device("cpu")

    @property
    def name(self) -> str:
        return self.extractor.key

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
        self._device = device
        if self._real is not None:
            return
        self._check_company(trainer)
        self._check_counts(data)
        try:
            with torch.no_grad():
                width = self._features(torch.zeros(1, *data.shape, device=device)).shape[1]
        except TypeError as error:  # the datamodule's, which has no images
            raise OldError(
                f"{self.key} given, but {error}", "data with images", "type another extractor, e.g. fd_raw"
            ) from error
        if self.statistics:
            self._real = read_statistics(self.statistics, self.extractor.statistics)
            if len(self._real.mean) != width:
                raise OldError(
                    f"statistics {self.statistics} are of {len(self._real.mean)} features",
                    f"{self.key}'s {width}",
                    "type another archive, or another extractor",
                )
            if self._wants_features:
                self._real_features = self._archive_features(self.statistics, device)
            return

        if not data.has_training_data:
            raise OldError(
                f"{self.key} given without statistics for {type(data).__name__} data",
                "real images to compare with",
                "type statistics: ARCHIVE.npz",
            )

        @torch.no_grad()
        def compute() -> Tensor:
            if self.extractor.fingerprint is not None:
                print(f"Features of {len(data.real_split):,} real images for {self.key}, once, then kept", flush=True)
            batches = data.encoded(data.real_split).split(1000)
            return torch.cat([self._features(x.to(device)).cpu() for x in batches])

        if self.extractor.fingerprint is None:  # too cheap to be kept
            features = compute()
        else:
            identity = (self.extractor.fingerprint, data.comparison_fingerprint, data.space, data.decoder)
            features = kept_features(cache_directory(None).parent / "features", identity, compute)
        self._real = GaussianReference(*moments(features), samples=len(features))
        self._real_features = features

    @property
    def _wants_features(self) -> bool:
        return self.kid or self.precision_recall or self.cmmd

    def _archive_features(self, path: str, device: torch.device) -> Tensor:
        if self.extractor.space != "uint8":
            raise OldError(
                f"{self.key} given with statistics={path} and kid, precision_recall or cmmd",
                "an extractor of 8-bit images like the archive's",
                "type extractor: fid",
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
                raise OldError(f"two FIDMonitors of {self.key} given", "one", "leave the other out")
            for option in ("kid", "precision_recall", "inception_score", "cmmd"):
                if getattr(self, option) and getattr(other, option):
                    raise OldError(
                        f"{option} given to two FIDMonitors ({other.key} and {self.key}), which would log it by one name",
                        "it in one of them",
                        f"type {option}: false in the other",
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
                raise OldError(
                    f"{name}={given} given",
                    f"at least {needed} samples for what FIDMonitor measures",
                    f"type {name} 1000",
                )

    def _features(self, x: Tensor) -> Tensor:
        return self.extractor(self._read(x) if self._read else x)

    def build(self) -> FrechetDistance:
        assert self._real is not None
        return FrechetDistance(self.extractor, self._real, read=self._read, compute_on_cpu=self._on_cpu)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        features = columns["features"]
        if len(features) < 2:
            return {}
        numbers = {self.key: self._influence(columns).value if base is not None else self._distance(features)}
        if len(features) >= self._needed:  # a floor has no more samples than images
            numbers |= self._others(features)
        return self.with_change(numbers, columns, base)

    def _others(self, features: Tensor) -> dict[str, float]:
        values: dict[str, float] = {}
        if self.inception_score:
            assert isinstance(self.extractor, InceptionFeatures)
            self.extractor.load()
            values |= inception_score(self.extractor.logits(features))
        if self._real_features is not None:
            real = self._real_features.to(self._device)
            if self.precision_recall:
                self._balls = self._balls or Balls(real.float())
                values |= precision_recall(features.to(self._device), real, self._balls)
            values |= kernel_distance(features, self._real_features) if self.kid else {}
            values |= cmmd(features, self._real_features) if self.cmmd else {}
        return values

    def _distance(self, features: Tensor) -> float:
        assert self._real is not None
        return self._real.distance(*moments(features))

    def _influence(self, columns: Columns) -> Influence:
        assert self._real is not None
        features = columns["features"]
        if self._latest is None or self._latest[0]() is not features:
            self._latest = (weakref.ref(features), self._real.influence(features))
        return self._latest[1]

    def change(self, here: Columns, there: Columns) -> Change:
        check_same_seeds(here, there)
        features = there["features"]
        if self._base is None or self._base[0]() is not features:  # compared with every row
            assert self._real is not None
            self._base = (weakref.ref(features), self._real.influence(features))
        return paired_mean_change(self._influence(here), self._base[1])

    def facts(self) -> dict[str, Any]:
        assert self._real is not None
        real = fingerprint(self._real.mean.numpy().tobytes(), self._real.cov.numpy().tobytes())
        about = {"key": self.key, "label": self.extractor.label, "reference": self.samples}
        return {"quality": about | {"width": len(self._real.mean), "real": real}}

    def qualities(self, columns: Columns) -> dict[Measure, Quality]:
        assert self._real is not None
        features = columns["features"]
        found: dict[Measure, Quality] = {}
        if len(features) >= 4:
            influence = self._influence(columns)
            value = extrapolated_distance(self._real, features)
            found["frechet"] = Quality(value, influence.contributions.cpu().numpy())
        if self._real_features is not None and len(features) >= 2:
            self._kernel = self._kernel or KernelReference(self._real_features.to(self._device))
            kernel = self._kernel.influence(features.to(self._device))
            found["kernel"] = Quality(kernel.value, kernel.samples.cpu().numpy())
        return found

    def remember(self, folder: Path) -> None:
        assert self._real is not None
        arrays = {name: value.cpu().numpy() for name, value in (("mean", self._real.mean), ("cov", self._real.cov))}
        arrays["samples"] = np.array(self._real.samples)
        if self._real_features is not None:
            arrays["features"] = compact(self._real_features.cpu().numpy())
        file = self._file(folder, self.fingerprint)
        temporary = file.with_suffix(".tmp")
        with temporary.open("wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
        os.replace(temporary, file)

    def recall(self, folder: Path, fingerprint: str) -> None:
        file = self._file(folder, fingerprint)
        try:
            with np.load(file) as kept:
                mean, cov = torch.from_numpy(kept["mean"]), torch.from_numpy(kept["cov"])
                real = GaussianReference(mean, cov, samples=int(kept["samples"]))
                features = torch.from_numpy(kept["features"]).float() if "features" in kept else None
        except (OSError, ValueError, KeyError) as error:
            raise OldError(
                f"{file} cannot be read ({' '.join(str(error).split())})",
                f"the statistics of real images that {self.key} was measured with",
                "type fm-lightning test with the run's configuration",
            ) from error
        self._real, self._real_features = real, features

    def _file(self, folder: Path, fingerprint: str) -> Path:
        return folder / f"{self.name}-{fingerprint}.npz"
