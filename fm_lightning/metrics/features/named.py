"""Feature extractors by the name of their distance."""

from __future__ import annotations

from collections.abc import Callable

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
from fm_lightning.metrics.features.dinov2 import DinoFeatures
from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
from fm_lightning.metrics.features.inception import InceptionFeatures, PytorchFIDFeatures, SpatialInceptionFeatures

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
    """The extractor of a distance.

    Raises:
        UserError: an unknown name.
    """
    if name not in EXTRACTORS:
        raise UserError(f"There is no extractor {name!r}.", f"Use one of {', '.join(EXTRACTORS)}, or a class.")
    return EXTRACTORS[name]()
