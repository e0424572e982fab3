"""Error rates of verdicts on synthetic seeds with known truth; the page with all of them is docs/results/verdict_simulation.md.

The bounds are the stated rates plus what chance allows with so few repetitions (three standard errors).
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict_simulation import (
    WORLDS,
    alike_families,
    all_families,
    correlation_rates,
    frechet_rates,
    near_rates,
    rates,
)

REPETITIONS = 150


def allowed(rate):
    return rate + 3 * np.sqrt(rate * (1 - rate) / REPETITIONS)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_coverage_and_error_rates(world):
    null, edge, below, above = (rates(world, effect, 2000, REPETITIONS, seed=1) for effect in (0.0, 1.0, 2.0, -2.0))
    for name in ("coverage", "relative_coverage"):
        assert 0.91 <= np.mean([getattr(found, name) for found in (null, edge, below, above)]) <= 0.99
    assert min(found.judged for found in (null, edge, below, above)) > 0.95
    assert null.outcomes["better"] <= allowed(0.033)
    assert null.outcomes["worse"] <= allowed(0.025)
    assert edge.outcomes["no better"] + edge.outcomes["worse"] <= allowed(0.03)
    assert below.outcomes["no better"] <= allowed(0.017)
    assert below.outcomes["better"] >= 0.64
    assert above.outcomes["worse"] >= 0.64
    assert sum(null.outcomes.values()) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_several_families_at_once():
    on, below, above = (all_families(effect, 2000, REPETITIONS, seed=1) for effect in (0.0, 2.0, -2.0))
    assert on["better"] <= allowed(0.033)
    assert on["worse"] <= allowed(0.025)
    assert on["no better"] >= 0.64
    assert below["no better"] <= allowed(0.017)
    assert below["better"] >= 0.64
    assert above["worse"] >= 0.64


@pytest.mark.slow
def test_worse_than_one_of_many_families_is_corrected():
    assert alike_families(12, 500, 60, seed=1) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 60)


@pytest.mark.slow
def test_coverage_with_the_extrapolated_frechet_distance():
    assert 0.88 <= frechet_rates(400, 8, 100, seed=1) <= 1.0
    covered, _ = near_rates(640, 64, 400, seed=1)
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.slow
@pytest.mark.parametrize("n", [128, 256, 512, 2000])
@pytest.mark.parametrize(("name", "classes"), [("lines", 1), ("lines", 5), ("curves", 1), ("curves", 5), ("lines", 10)])
def test_what_is_independent_given_covariates_and_class_has_no_partial_correlation(name, classes, n):
    mean, covered = correlation_rates(name, classes, n, REPETITIONS, seed=1)
    assert abs(mean) <= 3 / np.sqrt(n * REPETITIONS) + 0.008
    assert covered >= 0.94 - 3 * np.sqrt(0.94 * 0.06 / REPETITIONS)
