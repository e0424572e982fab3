"""Precision and recall against brute force in float64, where torch-fidelity's products lose digits too."""

import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from fm_lightning.errors import UserError
from fm_lightning.metrics.precision_recall import Balls, precision_recall


def distances(a, b):
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def inside(points, centres, k=3):
    radius = distances(centres, centres).sort(1).values[:, k]
    return (distances(points, centres) <= radius).any(1)


def two_sets(n, m, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.9 * torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 300, 2), (300, 40, 16), (200, 200, 64), (60, 60, 512)])
def test_brute_force(n, m, d):
    fake, real = two_sets(n, m, d)
    found = precision_recall(fake, real)
    assert found["precision"] == float(inside(fake, real).double().mean())
    assert found["recall"] == float(inside(real, fake).double().mean())


def test_copies_and_duplicates():
    """A copy lies in its original's ball, also where duplicates give that ball no radius."""
    fake, real = two_sets(50, 60, 8)
    real[5:12] = real[5]
    fake[:5] = real[5]
    fake = fake + 100  # away from the origin, where products lose digits
    real = real + 100
    held = Balls(real).hold(fake)
    assert held[:5].all()
    assert torch.equal(held, inside(fake, real))
    assert Balls(real).hold(real).all()


def test_torch_fidelity_where_nothing_lies_on_an_edge():
    fake, real = two_sets(150, 200, 32, seed=3)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)
    ours = precision_recall(fake, real, Balls(real))
    assert (ours["precision"], ours["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]))


def test_too_few_images():
    fake, real = two_sets(3, 20, 4)
    with pytest.raises(UserError, match="more than 3"):
        precision_recall(fake, real)
