"""Feature extractors by the name of their distance."""

from __future__ import annotations

from collections.abc import Callable

from fm_lightning.errors import OldError
from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
from fm_lightning.metrics.features.dinov2 import DinoFeatures
from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
from fm_lightning.metrics.features.inception import (
    InceptionFeatures,
    PytorchFIDFeatures,
    SpatialInceptionFeatures,
)

EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {
    "fid": InceptionFeatures,
    "fid_pytorch": PytorchFIDFeatures,
    "sfid": SpatialInceptionFeatures,
    "fd_clip": ClipFeatures,
    "fd_cmmd": CmmdFeatures,
    "fd_dinov2": DinoFeatures,
    "fd_digits": DigitsFeatures,
    "fd_raw": RawFeatures,
}


def named_extractor(name: str) -> FeatureExtractor:
    """The extractor behind a distance.

    Raises:
        UserError: an unknown name.
    """
    if name not in EXTRACTORS:
        raise OldError(f"extractor {name!r} given", f"a class or one of {', '.join(EXTRACTORS)}", "type e.g. fid")
    return EXTRACTORS[name]()
