"""Error rates of verdicts on synthetic seeds with known truth; the page with all of them is docs/results/verdict_simulation.md.

The bounds are the stated rates plus what chance allows with so few repetitions (three standard errors).
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict_simulation import WORLDS, all_families, frechet_rates, rates

REPETITIONS = 150


def allowed(rate):
    return rate + 3 * np.sqrt(rate * (1 - rate) / REPETITIONS)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_coverage_and_error_rates(world):
    null, edge, twice = (rates(world, effect, 2000, REPETITIONS, seed=1) for effect in (0.0, 1.0, 2.0))
    coverage = (null.coverage + edge.coverage + twice.coverage) / 3
    assert 0.91 <= coverage <= 0.99, coverage
    assert min(null.judged, edge.judged, twice.judged) > 0.95
    assert null.better <= allowed(0.033)
    assert edge.explained <= allowed(0.025)
    assert twice.explained <= allowed(0.017)
    assert twice.better >= 0.64
    assert null.explained + null.undecided + null.better == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_several_families_at_once():
    on, below = (all_families(effect, 2000, REPETITIONS, seed=1) for effect in (0.0, 2.0))
    assert on["better"] <= allowed(0.033)
    assert on["explained"] >= 0.64
    assert below["explained"] <= allowed(0.017)
    assert below["better"] >= 0.64


@pytest.mark.slow
@pytest.mark.parametrize(("d", "n"), [(8, 400), (64, 320)])
def test_coverage_with_the_extrapolated_frechet_distance(d, n):
    assert 0.88 <= frechet_rates(n, d, 100, seed=1).coverage <= 1.0
