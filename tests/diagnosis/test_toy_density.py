"""The toys' densities: they integrate to one, agree with the samples drawn, and their quadrature has converged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from fm_lightning.data.toys import TOYS
from fm_lightning.diagnosis.toy_density import NODES, log_density
from fm_lightning.errors import UserError

SIDE = 1.4


@pytest.mark.parametrize("name", sorted(TOYS))
def test_samples_fall_where_the_density_says(name, monkeypatch):
    """A chi-square test over 14 x 14 boxes, each integrated by 20 x 20 midpoints; the density integrates to one on the way."""
    boxes, fine = 14, 20
    edges = np.linspace(-SIDE, SIDE, boxes * fine + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    grid = torch.from_numpy(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2))
    # The narrowest curve is 0.02 wide, midpoints are 0.01 apart; a quarter of the nodes does for counts.
    if name in NODES:
        monkeypatch.setitem(NODES, name, NODES[name] // 4)
    density = log_density(name, grid).exp().numpy()
    mass = density.reshape(boxes, fine, boxes, fine).sum((1, 3)) * (2 * SIDE / (boxes * fine)) ** 2
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    points, _ = TOYS[name][0](40_000, np.random.default_rng(0))
    counts = np.histogram2d(*points.T, bins=boxes, range=[[-SIDE, SIDE]] * 2)[0]
    expected = 40_000 * mass / mass.sum()
    big = expected > 5
    statistic = ((counts - expected)[big] ** 2 / expected[big]).sum()
    assert statistic < chi2.ppf(0.9999, big.sum())
    assert counts[~big].sum() < expected[~big].sum() + 6 * math.sqrt(expected[~big].sum()) + 6


@pytest.mark.parametrize("name", ["moons", "spiral"])
def test_the_quadrature_has_converged(name, monkeypatch):
    rng = np.random.default_rng(1)
    points, _ = TOYS[name][0](200, rng)
    x = torch.from_numpy(points + 2 * {"moons": 0.04, "spiral": 0.02}[name] * rng.standard_normal(points.shape))
    found = log_density(name, x)
    monkeypatch.setitem(NODES, name, 2 * NODES[name])
    torch.testing.assert_close(found, log_density(name, x), atol=1e-6, rtol=0)


def test_closed_forms_by_hand():
    peak = log_density("eight_gaussians", torch.tensor([[0.85, 0.0]]))
    assert float(peak) == pytest.approx(math.log(1 / 8 / (2 * math.pi * 0.06**2)), abs=1e-9)
    board = log_density("checkerboard", torch.tensor([[-0.9, -0.9], [-0.9, -0.4], [1.1, 0.0], [-0.4, -0.4]]))
    assert board.tolist() == [math.log(0.5), -math.inf, -math.inf, math.log(0.5)]
    assert log_density("moons", torch.zeros(0, 2)).shape == (0,)


def test_refused():
    with pytest.raises(UserError, match="the toy 'rings'"):
        log_density("rings", torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"points have shape \[2, 3\]"):
        log_density("moons", torch.zeros(2, 3))
