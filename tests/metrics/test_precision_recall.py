"""Precision and recall against brute force in float64, where torch-fidelity's products lose digits too."""

import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from fm_lightning.errors import UserError
from fm_lightning.metrics import precision_recall as module
from fm_lightning.metrics.neighbours import cascade
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
    held, _ = module._inside(Balls(fake), Balls(real))
    assert held[:5].all()
    assert torch.equal(held, inside(fake, real))
    assert module._inside(Balls(real), Balls(real))[0].all()


def hard(case, n, m, d):
    fake, real = two_sets(n, m, d, seed=7)
    if case == "outliers":  # balls of very different sizes
        fake[::20] *= 1e3
        real[::15] *= 1e3
    if case == "alike":  # products of float32 see nothing but the two centres
        for x in (fake, real):
            x *= 1e-4
            x[::2] += 1
            x[1::2] -= 1
    if case == "grid":  # many points on the edges of balls
        fake, real = (2 * fake).round(), (2 * real).round()
    if case == "huge":
        fake, real = fake * 1e15, real * 1e15
    return fake, real


@pytest.mark.parametrize("case", ["outliers", "alike", "grid", "huge"])
@pytest.mark.parametrize("budget", [2**18, 2**28])
def test_hard_cases_are_exact(case, budget):
    fake, real = hard(case, 150, 230, 24 if case != "grid" else 3)
    samples, balls = Balls(fake), Balls(real)
    held, holds = module._inside(samples, balls, budget)
    radii = (distances(x, x).sort(1).values[:, 3].float() for x in (fake, real))
    across = distances(fake, real).float()
    for got, found, r in zip((holds, held), (across.T, across), radii):
        assert torch.equal(got, (found <= r).any(1))


@pytest.mark.parametrize("case", ["outliers", "alike"])
def test_hard_cases_take_few_subtractions(case, monkeypatch):
    fake, real = hard(case, 400, 500, 64)
    samples, balls = Balls(fake), Balls(real)
    pairs = []
    subtracted = cascade.subtracted
    monkeypatch.setattr(
        cascade, "subtracted", lambda a, b, i, *rest: pairs.append(len(i)) or subtracted(a, b, i, *rest)
    )
    module._inside(samples, balls)
    assert sum(pairs) < 5000, "of 200 000 pairs"


@pytest.mark.parametrize("case", ["random", "outliers", pytest.param("alike", marks=pytest.mark.slow)])
def test_memory_stays_within_the_budget(case, peak_bytes):
    fake, real = hard(case, 900, 1000, 64)
    samples, balls = Balls(fake), Balls(real)
    used = peak_bytes(lambda: module._inside(samples, balls, 2**21))
    assert used <= 2**21 + len(fake) + len(real)


def test_torch_fidelity_where_nothing_lies_on_an_edge():
    fake, real = two_sets(150, 200, 32, seed=3)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)
    ours = precision_recall(fake, real, Balls(real))
    assert (ours["precision"], ours["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]))


def test_too_few_images():
    fake, real = two_sets(3, 20, 4)
    with pytest.raises(UserError, match="more than 3"):
        precision_recall(fake, real)
