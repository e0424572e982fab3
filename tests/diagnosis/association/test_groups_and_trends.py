"""Groups, trends, effect sizes, AUROC and the test for non-monotonicity: by hand, against brute force, and simulated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from fm_lightning.diagnosis.association.groups import effect_size, group_means, mean_difference, quantile_groups, trend
from fm_lightning.diagnosis.association.monotone import isotonic, non_monotonicity, share_curve
from fm_lightning.diagnosis.association.roc import auroc, auroc_difference
from fm_lightning.diagnosis.over_training import first_passage
from fm_lightning.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 60), st.integers(0, 10**6))
def test_groups_are_quantiles(count, more, seed):
    values = np.random.default_rng(seed).standard_normal(count + more)
    groups = quantile_groups(values, count)
    sizes = np.bincount(groups)
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1
    for g in range(count - 1):
        assert values[groups == g].max() < values[groups == g + 1].min()


def test_strata_are_spread_evenly():
    """Class 1 has energies far above class 0; both are in each third alike."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 30)
    values = 100 * label + rng.standard_normal(60)
    groups = quantile_groups(values, 3, label)
    assert [[int(((groups == g) & (label == c)).sum()) for g in range(3)] for c in (0, 1)] == [[10] * 3] * 2
    assert quantile_groups(values, 3)[label == 0].max() == 1
    for c in (0, 1):
        np.testing.assert_array_equal(groups[label == c], quantile_groups(values[label == c], 3))


def test_too_few_for_groups():
    with pytest.raises(UserError, match="2 samples cannot fill 3 groups"):
        quantile_groups([1.0, 2.0], 3)
    with pytest.raises(UserError, match="1 different values cannot fill 3 groups"):
        quantile_groups(np.ones(9), 3)
    with pytest.raises(UserError, match="group 0 stays empty"):
        quantile_groups(np.arange(5.0), 3, np.arange(5))
    with pytest.raises(UserError, match="always monotone"):
        non_monotonicity([1, 2], [5, 5])
    with pytest.raises(UserError, match="more hits than samples"):
        non_monotonicity([1, 6, 2], [5, 5, 5])
    with pytest.raises(UserError, match="1 group has no trend"):
        trend([0, 0], [1, 2])


def jonckheere(groups, values):
    """J by all pairs."""
    return sum(
        (values[i] < values[j]) + 0.5 * (values[i] == values[j])
        for i, j in itertools.permutations(range(len(groups)), 2)
        if groups[i] < groups[j]
    )


def test_trend_is_jonckheere_terpstra():
    """Without ties: mean and variance of J by the textbook's formulas (Hollander and Wolfe)."""
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], [7, 5, 9])
    values = rng.standard_normal(21) + 0.4 * groups
    sizes, n = np.bincount(groups), 21
    mean = (n**2 - (sizes**2).sum()) / 4
    variance = (n**2 * (2 * n + 3) - (sizes**2 * (2 * sizes + 3)).sum()) / 72
    z = (jonckheere(groups, values) - mean) / math.sqrt(variance)
    assert trend(groups, values).p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)


def test_trend_with_ties_matches_all_permutations():
    """Mean and variance of J over all permutations of a small sample with ties."""
    groups, values = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([1.0, 1, 2, 2, 3, 3, 5])
    every = np.array([jonckheere(groups, np.array(v)) for v in set(itertools.permutations(values))])
    # Distinct arrangements are equally likely.
    z = (jonckheere(groups, values) - every.mean()) / every.std()
    assert trend(groups, values).p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-6)
    assert trend(groups, np.ones(7)).value is None
    assert trend(groups, -values).value == -trend(groups, values).value


def test_effect_size_by_hand():
    """Means 2 and 5, both variances 1, n = m = 3: J = 1 - 3/15, g = 0.8 * 3 = 2.4."""
    found = effect_size([1, 2, 3], [4, 5, 6])
    assert found.value == pytest.approx(2.4)
    half = 1.959963984540054 * math.sqrt(6 / 9 + 2.4**2 / 12)
    assert found.high - found.value == pytest.approx(half)
    assert effect_size([1, 1], [2, 2]).value is None
    assert effect_size([1], [2, 3]).value is None
    change = mean_difference([1, 2, 3], [4, 5, 6])
    assert change.value == 3
    assert change.low == pytest.approx(3 - 2.7764451052 * math.sqrt(2 / 3))  # t of 4 degrees of freedom
    assert mean_difference([1, 1], [2, 2]).low is None
    assert mean_difference([1], [2, 2]).reason


def test_effect_sizes_interval_covers():
    rng = np.random.default_rng(2)
    inside = sum(
        found.low <= 0.5 <= found.high
        for found in (effect_size(rng.standard_normal(40), 0.5 + rng.standard_normal(40)) for _ in range(500))
    )
    assert 0.92 <= inside / 500 <= 0.98


def test_group_means_by_hand():
    found = group_means([0, 0, 0, 1], [1, 2, 3, 7])
    assert [m.value for m in found] == [2, 7]
    assert found[0].high == pytest.approx(2 + 4.30265273 / math.sqrt(3))
    assert found[1].low is None
    with pytest.raises(UserError, match="Group 1 has no samples"):
        group_means([0, 2], [1, 2])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 50), st.integers(0, 10**6))
def test_auroc_is_sklearns(n, seed):
    rng = np.random.default_rng(seed)
    score, event = rng.integers(8, size=n), rng.random(n) < 0.4
    found = auroc(score, event)
    if event.all() or not event.any():
        assert found.value is None
        assert "nothing to tell apart" in found.reason
        return
    assert found.value == pytest.approx(roc_auc_score(event, score), abs=1e-12)
    if found.low is not None:
        assert 0 < found.low < found.high < 1


def test_delongs_variance_by_brute_force():
    rng = np.random.default_rng(3)
    event = np.arange(30) < 12
    a, b = (rng.standard_normal(30).round(1) + shift * event for shift in (1.0, 0.5))

    def components(score):
        psi = (score[event][:, None] > score[~event]) + 0.5 * (score[event][:, None] == score[~event])
        return psi.mean(), psi.mean(1), psi.mean(0)

    (area, v10, v01), (other, w10, w01) = components(a), components(b)
    se = math.sqrt(v10.var(ddof=1) / 12 + v01.var(ddof=1) / 18)
    found = auroc(a, event)
    logit = math.log(area / (1 - area))
    assert found.value == pytest.approx(area)
    assert found.high == pytest.approx(1 / (1 + math.exp(-logit - 1.959963984540054 * se / (area * (1 - area)))))
    se = math.sqrt((v10 - w10).var(ddof=1) / 12 + (v01 - w01).var(ddof=1) / 18)
    difference = auroc_difference(a, b, event)
    assert difference.value == pytest.approx(area - other)
    assert difference.high - difference.value == pytest.approx(1.959963984540054 * se)
    assert auroc_difference(a, 2 * a, event).low is None


def test_auroc_covers():
    rng = np.random.default_rng(4)
    truth, inside = norm.cdf(1 / math.sqrt(2)), 0
    for _ in range(500):
        score = np.concatenate([1 + rng.standard_normal(25), rng.standard_normal(60)])
        found = auroc(score, np.arange(85) < 25)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 500 <= 0.98


def test_auroc_without_an_interval():
    assert auroc([3, 4, 1, 2], [1, 1, 0, 0]).reason == "no interval: a perfect separation"
    assert auroc([1, 1, 1, 1], [1, 1, 0, 0]).value == 0.5
    assert auroc([1, 2, 3], [0, 0, 1]).low is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_isotonic_is_sklearns(count, seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 30, size=count).astype(float)
    hits = rng.binomial(n.astype(int), rng.random(count), size=(5, count))
    for row, fitted in zip(hits, isotonic(hits, n)):
        theirs = IsotonicRegression().fit_transform(np.arange(count), row / n, sample_weight=n)
        np.testing.assert_allclose(fitted, theirs, atol=1e-9)


def size(shares, n, level=0.05, rounds=250):
    """How often a true curve is called non-monotone."""
    rng = np.random.default_rng(5)
    n = np.full(len(shares), n)
    return np.mean(
        [(non_monotonicity(rng.binomial(n, shares), n, simulations=400, seed=i).p or 1) <= level for i in range(rounds)]
    )


@pytest.mark.parametrize(
    "shares", [[0.3] * 5, [0.05, 0.2, 0.4, 0.6, 0.9], [0.1, 0.7, 0.7, 0.7, 0.7], [0.9, 0.4, 0.4, 0.4, 0.4]]
)
def test_a_monotone_curve_is_rarely_called_otherwise(shares):
    """At most 5%, with the binomial error of 250 rounds (three standard deviations, 4.1%)."""
    assert size(shares, 100) <= 0.091


def test_the_test_reaches_its_level_at_the_edge_of_the_null():
    """Flat behind one step: the least favourable order is refuted always, the other one at its level. Not merely 'never'."""
    assert size([0.02, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], 100) >= 0.02


def test_a_goldilocks_curve_is_found():
    assert size([0.3, 0.5, 0.6, 0.5, 0.3], 200) >= 0.95
    assert size([0.6, 0.4, 0.3, 0.4, 0.6], 200) >= 0.95


def test_non_monotonicity_of_nothing():
    assert non_monotonicity([0, 0, 0], [5, 5, 5]).value is None
    assert non_monotonicity([5, 5, 5], [5, 5, 5]).reason
    assert non_monotonicity([1, 2, 3], [5, 5, 5]).value == pytest.approx(0)
    assert non_monotonicity([1, 2, 3], [5, 5, 5]).p == 1


def test_share_curve_by_hand():
    curve = share_curve([3, 1, 2, 6, 5, 4], [True, False, True, True, True, False], 3)
    np.testing.assert_array_equal(curve.hits, [1, 1, 2])
    np.testing.assert_array_equal(curve.n, [2, 2, 2])
    np.testing.assert_array_equal(curve.middle, [1.5, 3.5, 5.5])
    assert curve.low[0] < 0.5 < curve.high[0]


def test_first_passage():
    found = first_passage([100, 200, 300, 400], [0.0, 0.004, 0.02, 0.005], 0.01)
    assert (found.step, found.before) == (300, 200)
    assert first_passage([1, 2], [0.5, 0.6], 0.01).before is None
    never = first_passage([1, 2], [0.0, 0.0], 0.01)
    assert (never.step, never.before) == (None, 2)
    assert first_passage([1, 2], [0.0, 0.01], 0.01).step == 2
    with pytest.raises(UserError, match="do not ascend"):
        first_passage([2, 1], [0, 1], 0.5)
