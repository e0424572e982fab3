"""The Fréchet distance from moments alone, and the units that extractors and metrics refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_lightning.errors import UserError
from fm_lightning.metrics import (
    ClassifierSemantics,
    DigitsFeatures,
    FrechetDistance,
    FrechetMoments,
    KernelDistance,
    RawFeatures,
)
from fm_lightning.metrics.features.extractor import ModuleFeatures
from fm_lightning.metrics.features.space import FeatureSpace

REAL = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
X = 0.7 * torch.randn(400, 5, generator=torch.Generator().manual_seed(1)) + 300


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_moments_give_the_distance_of_all_features_in_memory_that_does_not_grow(batch):
    whole, moments = FrechetDistance(RawFeatures(), REAL), FrechetMoments(RawFeatures(), REAL)
    whole.update(X)
    for part in X.split(batch):
        moments.update(part)
    moments.update(X[:0])
    assert moments.compute()["fd_raw"] == pytest.approx(whole.compute()["fd_raw"], rel=1e-9)
    assert sum(getattr(moments, name).numel() for name in moments._defaults) == 1 + 5 + 25


@pytest.mark.parametrize("n", [0, 1])
def test_moments_need_two_samples(n):
    metric = FrechetMoments(RawFeatures(), REAL)
    metric.update(X[:n])
    with pytest.raises(UserError, match="cannot have a covariance"):
        metric.compute()


BYTES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
FLOATS = BYTES.float() / 127.5 - 1


def to_uint8(x):
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


eight = ModuleFeatures(nn.Flatten(), "fd_pixels", space="uint8")
IN_THE_WRONG_UNIT = {
    "extractor of the model's space": lambda: RawFeatures()(BYTES),
    "digits features": lambda: DigitsFeatures()(BYTES),
    "extractor of bytes": lambda: eight(FLOATS),
    "Fréchet distance": lambda: FrechetDistance(DigitsFeatures(), torch.randn(9, 64)).update(BYTES),
    "converted Fréchet distance": lambda: FrechetDistance(eight, torch.rand(9, 64), read=to_uint8).update(BYTES),
    "moments": lambda: FrechetMoments(DigitsFeatures(), torch.randn(9, 64)).update(BYTES),
    "kernel distance": lambda: KernelDistance(RawFeatures(), torch.randn(9, 64)).update(BYTES),
    "feature space": lambda: FeatureSpace(RawFeatures())(BYTES, 64),
    "classifier": lambda: ClassifierSemantics(nn.Flatten()).measure(BYTES),
}


@pytest.mark.parametrize("name", IN_THE_WRONG_UNIT)
def test_samples_in_another_unit_are_refused(name):
    with pytest.raises(UserError, match=r"uint8|float"):
        IN_THE_WRONG_UNIT[name]()
