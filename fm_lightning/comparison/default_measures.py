"""The measures of a comparison without callbacks: energy, memorization and Fréchet distance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_lightning.data.samples import Samples
from fm_lightning.data.split import Split
from fm_lightning.errors import UserError
from fm_lightning.metrics.energy import KineticPathEnergy
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.named import EXTRACTORS, named_extractor
from fm_lightning.metrics.frechet_metrics import FrechetDistance
from fm_lightning.metrics.measure import Measure
from fm_lightning.metrics.memorization import MemorizationRate
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.real_features import RealFeatures, extract


def default_measures(
    data: Samples, features: str | FeatureExtractor | None, device: torch.device, threshold: float, tau_split: float
) -> list[Measure]:
    """Energy, memorization and Fréchet distance against the data's real samples."""
    found: list[Measure] = [KineticPathEnergy(tau_split)]
    if data.has_training_data:
        stored, views = data.memorization_reference()
        stored = stored.to(device) if isinstance(stored, Tensor) else stored
        reference = Reference(stored, device=device, encode=data.encode)
        found.append(MemorizationRate(reference, threshold, data.flip, views=views))
    if features is not None:
        if isinstance(features, str):
            features = named_extractor(features if features in EXTRACTORS else f"fd_{features}")
        if not isinstance(features, FeatureExtractor):
            raise UserError(
                f"features of type {type(features).__name__} are not an extractor.",
                'Wrap a module in fm_lightning.metrics.features.ModuleFeatures(module, key="fd_mine").',
            )
        features.load()
        features.to(device).eval()
        read = data.to_uint8 if features.space == "uint8" else None
        found.append(_distance(data, features, read, device))
    return found


def _distance(
    data: Samples, features: FeatureExtractor, read: Callable[[Tensor], Tensor] | None, device: torch.device
) -> FrechetDistance:
    """To the real samples; verdicts compare with those that training did not see."""

    def of(split: Split) -> Tensor:
        return extract(features, data.encoded(split).split(1000), device, read)

    held_out, rows, seen = data.verdict_reference
    real = RealFeatures(of(data.real_split), seen=None if held_out else seen)
    assert real.features is not None
    unseen = None
    if held_out or rows is not None:
        unseen = RealFeatures(
            of(data.held_out_split) if held_out else real.features[rows], seen=seen, held_out=held_out
        )
    return FrechetDistance(features, real, read, unseen=unseen)
