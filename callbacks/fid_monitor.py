"""FIDMonitor: Fréchet distance of samples to real images, and other numbers of the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning import Trainer
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data import FlowData
from fm_lightning.data.images.cache import cache_directory
from fm_lightning.data.samples import MOSTLY
from fm_lightning.errors import UserError
from fm_lightning.metrics import FeatureExtractor, FrechetDistance
from fm_lightning.metrics.features.named import named_extractor
from fm_lightning.metrics.features.space import ReadOnce
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.real_features import RealFeatures, archive_features, extract, kept_features, read_statistics
from fm_lightning.metrics.summaries import SUMMARIES
from fm_lightning.training.module import FlowMatching
from fm_lightning.verdicts.outcomes import FRECHET_FROM


@dataclass(frozen=True)
class _RealImages:
    """The datamodule's real images, as one extractor reads them."""

    extractor: FeatureExtractor
    data: FlowData
    device: torch.device
    read: Callable[[Tensor], Tensor] | None

    @property
    def cache(self) -> Path:
        """The folder of features that took long to compute."""
        return cache_directory(None).parent / "features"

    @property
    def width(self) -> int:
        """The number of features.

        Raises:
            UserError: the extractor reads images, and the data have none.
        """
        try:
            return extract(self.extractor, [torch.zeros(1, *self.data.shape)], self.device, self.read).shape[1]
        except TypeError as error:  # the datamodule's, which has no images
            raise UserError(
                f"{self.extractor.key} reads images, but {error}.", "Use another extractor, for example fd_raw."
            ) from error

    def features(self, which: Literal["real", "held_out"]) -> Tensor:
        """``[n, D]`` features of a split; costly ones are kept on disk."""
        extractor, data = self.extractor, self.data
        split = data.real_split if which == "real" else data.held_out_split

        def compute() -> Tensor:
            if extractor.costly:
                print(f"Computing features of {len(split):,} real images for {extractor.key} (once)", flush=True)
            return extract(extractor, data.encoded(split).split(1000), self.device, self.read)

        if not extractor.costly:
            return compute()
        identity = (extractor.fingerprint, data.comparison_fingerprint, data.space, data.decoder)
        return kept_features(self.cache, identity + (() if which == "real" else (which,)), compute)


class FIDMonitor(Monitor[FrechetDistance]):
    """Fréchet distances on the features of extractors, whose names they carry: only Inception's is called ``fid``.

    Numbers, per row and extractor: ``{key}`` (for example ``fid``, ``fd_digits``), and except for base and floors its paired
    change from base with a 95% interval (``{key}_change``, ``_lo``, ``_hi``). Samples are converted to 8-bit images once,
    pass through each extractor once, and the first extractor's features also give what is switched on below. The numbers follow
    the field's protocol and compare with the datamodule's real images; verdicts compare with those that training did not see
    (``Samples.verdict_reference``).

    Weights are loaded, and if necessary downloaded, before training begins.

    Args:
        extractors: an extractor, the name of its distance (fid, fid_pytorch, sfid, fd_clip, fd_cmmd, fd_dinov2, fd_digits or
            fd_raw), or a list of them. Verdicts rest on the first.
        kid: whether to add the kernel distance, ``kid_mean`` and ``kid_std``.
        precision_recall: whether to add ``precision`` and ``recall``.
        inception_score: whether to add the Inception score, ``isc_mean`` and ``isc_std``, of Inception's features.
        cmmd: whether to add CMMD, ``cmmd``; of the features of fd_cmmd if they are listed, which alone are comparable with
            published values.
        unbiased: whether validations add the distances that verdicts rest on, of the first extractor's features:
            ``quality_kernel`` and, from 10 samples per feature, the extrapolated ``quality_frechet``, each with its 95% interval
            for these real images (``_lo``, ``_hi``). A comparison always has both.
        statistics: archive with ``mu`` and ``sigma`` to compare with, instead of the datamodule's real images; the features of
            real images then come from its images ``arr_0``, as in ADM's evaluator.

    Raises:
        UserError: an unknown or repeated extractor, or options that need more than the data have.
    """

    def __init__(
        self,
        extractors: FeatureExtractor | str | list[FeatureExtractor | str],
        kid: bool = False,
        precision_recall: bool = False,
        inception_score: bool = False,
        cmmd: bool = False,
        unbiased: bool = False,
        statistics: str | None = None,
    ) -> None:
        super().__init__()
        listed = extractors if isinstance(extractors, list) else [extractors]
        self.extractors = [named_extractor(each) if isinstance(each, str) else each for each in listed]
        keys = [extractor.key for extractor in self.extractors]
        if len(set(keys)) < len(keys) or not keys:
            raise UserError(f"extractors={keys} must name each extractor once.", "List at least one, and none twice.")
        wanted = {"kid": kid, "precision_recall": precision_recall, "inception_score": inception_score, "cmmd": cmmd}
        self.unbiased, self.statistics = unbiased, statistics
        self.summaries: dict[str, list[str]] = {key: [] for key in keys}
        for name in SUMMARIES:
            if wanted[name]:
                of = next((e for e in self.extractors if name == "cmmd" and e.key == "fd_cmmd"), self.extractors[0])
                SUMMARIES[name].check(of)
                self.summaries[of.key].append(name)
        self._real: dict[str, RealFeatures] = {}

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data, device = pl_module.data, trainer.strategy.root_device
        self._check_counts(data)
        to_uint8 = ReadOnce(data.to_uint8)
        self.measures = []
        for extractor in self.extractors:
            extractor.load()
            extractor.to(device).eval()
            read = to_uint8 if extractor.space == "uint8" else None
            images = _RealImages(extractor, data, device, read)
            if extractor.key not in self._real:
                self._real[extractor.key] = self._real_side(images)
            real = self._real[extractor.key]
            real.device = device
            # Gathering over devices needs the features where they are.
            on_cpu = trainer.world_size == 1
            summaries = self.summaries[extractor.key]
            unseen = partial(self._unseen_side, real, images)
            self.measures.append(FrechetDistance(extractor, real, read, summaries, unseen, compute_on_cpu=on_cpu))

    def numbers(self, measure: FrechetDistance, columns: Columns, base: Columns | None) -> dict[str, float]:
        found = super().numbers(measure, columns, base)
        if not self.unbiased or measure is not self.measures[0]:
            return found
        enough = len(columns["features"]) >= FRECHET_FROM * columns["features"].shape[1]
        for name, distance in measure.qualities(columns).items():
            if name != "frechet" or enough:
                keys = (f"quality_{name}{end}" for end in ("", "_lo", "_hi"))
                found |= dict(zip(keys, distance))
        return found

    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[FrechetDistance]:
        return [
            FrechetDistance.recalled(folder, fingerprints[e.key], extractor=e, summaries=self.summaries[e.key])
            for e in self.extractors
            if e.key in fingerprints
        ]

    def _real_side(self, images: _RealImages) -> RealFeatures:
        extractor, data, device = images.extractor, images.data, images.device
        width = images.width
        if self.statistics:
            gaussian = read_statistics(self.statistics, extractor.statistics)
            if len(gaussian.mean) != width:
                raise UserError(
                    f"The statistics {self.statistics} have {len(gaussian.mean)} features and {extractor.key} has {width}.",
                    "Use another archive or another extractor.",
                )
            needed = any(SUMMARIES[name].reads_real for name in self.summaries[extractor.key])
            features = archive_features(extractor, self.statistics, images.cache, device) if needed else None
            return RealFeatures(features, gaussian, device)
        if not data.has_training_data:
            raise UserError(
                f"{type(data).__name__} has no real images for {extractor.key}.", "Pass statistics, an .npz archive."
            )
        return RealFeatures(images.features("real"), device=device)

    def _unseen_side(self, real: RealFeatures, images: _RealImages) -> RealFeatures:
        """The real images that verdicts compare with; computed for a comparison, not for a validation."""
        if not images.data.has_training_data:
            return real
        held_out, rows, seen = images.data.verdict_reference
        if held_out or self.statistics:
            if seen > MOSTLY:  # whether training saw the archive's images is unknown, which is better than known
                return real
            features = images.features("held_out" if held_out else "real")
        elif rows is None:
            real.seen = seen
            return real
        else:
            assert real.features is not None
            features = real.features
        features = features if rows is None else features[rows]
        return RealFeatures(features, device=images.device, seen=seen, held_out=held_out)

    def _check_counts(self, data: FlowData) -> None:
        """Refuses before training what would otherwise end the run at its first validation, or at its test."""
        needed = max([2, *(SUMMARIES[name].least for names in self.summaries.values() for name in names)])
        for name, count in {"val_seeds": data.val_seeds, "test_seeds": data.test_seeds}.items():
            if count < needed:
                raise UserError(
                    f"{name}={count} is too few: FIDMonitor needs {needed} samples.", f"Set {name} to 1,000."
                )
