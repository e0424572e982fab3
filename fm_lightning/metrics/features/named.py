"""Feature extractors by the name of their distance."""

from __future__ import annotations

from collections.abc import Callable

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
from fm_lightning.metrics.features.dinov2 import DinoFeatures
from fm_lightning.metrics.features.extractor import DigitsFeatures, FeatureExtractor, RawFeatures
from fm_lightning.metrics.features.inception import InceptionFeatures, PytorchFIDFeatures, SpatialInceptionFeatures

PIXELS = (InceptionFeatures, PytorchFIDFeatures, SpatialInceptionFeatures, ClipFeatures, CmmdFeatures, DinoFeatures)
EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {
    kind.key: kind for kind in (*PIXELS, DigitsFeatures, RawFeatures)
}


def named_extractor(name: str) -> FeatureExtractor:
    """The extractor of a distance.

    Raises:
        UserError: an unknown name.
    """
    if name not in EXTRACTORS:
        raise UserError(f"There is no extractor {name!r}.", f"Use one of {', '.join(EXTRACTORS)}, or a class.")
    return EXTRACTORS[name]()
