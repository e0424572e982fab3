"""Estimates: what their intervals cover, paired differences, and the change of a share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate, share, share_change, wilson


def draw(n, gain, lose, both, rng):
    """before, after: each seed gains, loses, keeps or lacks the property."""
    kind = rng.choice(4, size=n, p=[gain, lose, both, 1 - gain - lose - both])
    return (kind == 1) | (kind == 2), (kind == 0) | (kind == 2)


@pytest.mark.parametrize(
    ("gain", "lose", "both"), [(0.02, 0.08, 0.5), (0.1, 0.1, 0.3), (0.0, 0.3, 0.4), (0.01, 0.01, 0.9)]
)
@pytest.mark.parametrize("n", [50, 400])
def test_the_interval_of_a_share_s_change_covers_the_true_change(n, gain, lose, both):
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(600):
        before, after = draw(n, gain, lose, both, rng)
        change = share_change(after, before)
        assert change.value == pytest.approx(after.mean() - before.mean(), abs=2 / n)
        assert change.low <= after.mean() - before.mean() <= change.high
        hits.append(change.low <= gain - lose <= change.high)
    assert np.mean(hits) >= 0.92


def test_only_seeds_that_changed_count():
    before = np.arange(100) < 60
    after = before & (np.arange(100) >= 10)
    change = share_change(after, before)
    assert change.value == pytest.approx(-10 / 102)
    assert change.sign == -1
    low, high = wilson(50, 100)
    assert change.high - change.low < high - low
    order = np.random.default_rng(0).permutation(100)
    assert tuple(share_change(after[order], before[order])) == tuple(change)
    back = share_change(before, after)
    assert tuple(back) == pytest.approx((-change.value, -change.high, -change.low), abs=1e-12)


@pytest.mark.parametrize("n", [0, 4])
def test_different_numbers_of_samples_cannot_be_paired(n):
    with pytest.raises(UserError, match=f"Cannot pair {n} samples with 3"):
        share_change(np.ones(n, bool), np.ones(3, bool))
    with pytest.raises(UserError, match=f"Cannot pair {n} samples with 3"):
        Estimate(0, 0, influence=np.zeros(n)) - Estimate.of(0, np.arange(3))


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (1999, 2000)])
def test_wilson_s_interval_is_scipy_s(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_mean_s_interval_covers_it_and_pairing_narrows_it():
    rng = np.random.default_rng(0)
    hits = {"mean": [], "difference": []}
    for _ in range(600):
        common, real = rng.normal(size=200), rng.normal(size=50)
        here, there = (common + 0.1 * rng.normal(size=200) + shift for shift in (0.5, 0.0))
        means = [Estimate.of(x.mean() - real.mean(), x - x.mean(), real.mean() - real) for x in (here, there)]
        difference = means[0] - means[1]
        hits["mean"].append(means[0].low <= 0.5 <= means[0].high)
        hits["difference"].append(difference.low <= 0.5 <= difference.high)
        assert difference.error < 0.2 * means[0].error
    assert all(0.92 <= np.mean(found) <= 0.98 for found in hits.values()), {k: np.mean(v) for k, v in hits.items()}


def test_an_interval_is_the_two_tests_at_its_level():
    estimate = Estimate(1.0, 0.5)
    assert estimate.p_above(estimate.low) == pytest.approx(0.025)
    assert estimate.p_below(estimate.high) == pytest.approx(0.025)
    assert Estimate.between(*estimate).error == pytest.approx(0.5)
    assert Estimate(1.0, 0.0).p_below(1.0) == 1.0


def test_a_share_s_contributions_give_its_standard_error():
    found = share([True, False, False, True, False])
    assert found.value == 0.4
    assert found.error == pytest.approx(np.sqrt(0.4 * 0.6 / 4))
    assert (found.low, found.high) == wilson(2, 5)
