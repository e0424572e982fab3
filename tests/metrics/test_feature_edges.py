"""Features at the edges: one image, fewer than features, constant, not finite, half precision, of other width."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning.errors import UserError
from fm_lightning.metrics import FrechetDistance, GaussianReference, RawFeatures, moments, summaries
from fm_lightning.metrics.precision_recall import precision_recall
from fm_lightning.metrics.summaries import cmmd, kid

D = 8
GENERATOR = torch.Generator().manual_seed(0)
REAL, FAKE = torch.randn(60, D, generator=GENERATOR), 0.8 * torch.randn(40, D, generator=GENERATOR) + 0.2


def frechet(features, real=REAL):
    metric = FrechetDistance(RawFeatures(), real)
    metric.update(features)
    return metric.compute()["fd_raw"]


MEASURES = {
    "frechet": frechet,
    "kernel": lambda f, real=REAL: kid(f, real)["kid_mean"],
    "support": lambda f, real=REAL: precision_recall(f, real)["recall"],
    "cmmd": lambda f, real=REAL: cmmd(f, real)["cmmd"],
}


@pytest.mark.parametrize("measure", ["frechet", "kernel", "support"])
def test_one_image_is_too_few(measure):
    with pytest.raises(UserError, match=r"Use (at least 2|more than 3)") as error:
        MEASURES[measure](FAKE[:1])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_named(measure, value, side):
    sides = [FAKE.clone(), REAL.clone()]
    sides[side][17, 3] = value
    with pytest.raises(UserError, match=r"17 contains? NaN or infinity") as error:
        MEASURES[measure](*sides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("measure", MEASURES)
def test_another_width_is_refused(measure):
    with pytest.raises(UserError) as error:
        MEASURES[measure](FAKE[:, :5])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_type_changes_rounding_alone(measure, dtype):
    fake, real = FAKE.to(dtype), REAL.to(dtype)
    assert MEASURES[measure](fake, real) == pytest.approx(MEASURES[measure](fake.float(), real.float()), rel=1e-5)


@pytest.mark.parametrize("measure", ["frechet", "kernel", "cmmd"])
def test_constant_features(measure):
    """Samples all alike: their covariance is 0."""
    alike = FAKE[:1].repeat(30, 1)
    value = MEASURES[measure](alike)
    assert np.isfinite(value)
    assert value > MEASURES[measure](FAKE)
    if measure == "frechet":
        mean, cov = moments(REAL)
        assert value == pytest.approx(float((FAKE[0].double() - mean).square().sum() + cov.trace()))
        found = GaussianReference(mean, cov).estimate(alike)
        assert np.abs(found.influence).max() < 1e-9
        assert frechet(alike, alike) == pytest.approx(0, abs=1e-6)


def test_a_spread_over_subsets_that_are_everything_is_not_shown(monkeypatch):
    assert set(kid(FAKE, REAL)) == {"kid_mean"}
    assert set(kid(REAL, FAKE)) == {"kid_mean"}
    monkeypatch.setattr(summaries, "SUBSET", 20)
    found = kid(FAKE, REAL)
    assert found["kid_std"] > 1e-4
