"""Rank correlations against scipy, a closed form, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fm_lightning.diagnosis.association import bootstrap, partial_spearman, spearman
from fm_lightning.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(1, 8), st.integers(0, 10**6))
def test_rho_and_p_are_scipys(n, distinct, seed):
    """With ties, too: few distinct values."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(distinct + 1, size=n), rng.standard_normal(n).round(1)
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found.value is None
        assert "constant" in found.reason
        return
    theirs = spearmanr(x, y)
    assert found.value == pytest.approx(theirs.statistic, abs=1e-12)
    if abs(found.value) < 1:
        assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert found.low < found.value < found.high


def test_fishers_interval_by_hand():
    """n = 28, rho = 0.6: artanh 0.693147, se = sqrt(1.18 / 25) = 0.217256."""
    x = np.arange(28.0)
    rng = np.random.default_rng(1)
    y = x + 12 * rng.standard_normal(28)
    found = spearman(x, y)
    half = 1.959963984540054 * math.sqrt((1 + found.value**2 / 2) / 25)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.value) - half), abs=1e-12)
    assert found.high == pytest.approx(math.tanh(math.atanh(found.value) + half), abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.85])
def test_the_interval_covers(rho):
    """Gaussian pairs, whose Spearman correlation is ``6 / pi arcsin(rho / 2)``."""
    rng = np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(rho / 2)
    inside = 0
    for _ in range(600):
        z = rng.standard_normal((2, 60))
        found = spearman(z[0], rho * z[0] + math.sqrt(1 - rho**2) * z[1])
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 600 <= 0.985


def test_one_covariate_is_kendalls_formula():
    rng = np.random.default_rng(3)
    z = rng.standard_normal(50)
    x, y = z + rng.standard_normal(50), -2 * z + rng.standard_normal(50)
    r = spearmanr(np.column_stack([x, y, z])).statistic
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    found = partial_spearman(torch.from_numpy(x), y, {"z": z})
    assert found.value == pytest.approx(expected, abs=1e-12)
    half = 1.959963984540054 * math.sqrt((1 + expected**2 / 2) / 46)
    assert found.high == pytest.approx(math.tanh(math.atanh(expected) + half), abs=1e-12)


def test_a_common_cause_is_partialled_out():
    rng = np.random.default_rng(4)
    label = rng.integers(5, size=2000)
    x, y = label + rng.standard_normal(2000), label + rng.standard_normal(2000)
    assert spearman(x, y).low > 0.5
    given_class = partial_spearman(x, y, strata=label)
    assert given_class.low < 0.05
    assert given_class.high > -0.05
    assert "class" in given_class.method
    assert partial_spearman(x, y, {"again": label}, strata=label).value == pytest.approx(given_class.value)


def test_nothing_held_fixed_is_the_plain_correlation():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 31))
    assert partial_spearman(x, y).value == pytest.approx(spearman(x, y).value, abs=1e-14)
    assert partial_spearman(x, y).low == pytest.approx(spearman(x, y).low, abs=1e-14)


def test_undefined_is_said_and_never_nan():
    x = np.arange(6.0)
    for found in (
        spearman(x, np.ones(6)),
        spearman([1.0], [2.0]),
        spearman([1, 2], [2, 1]),
        partial_spearman(x, x**2, {"same": x}),
        partial_spearman(np.zeros(6), x),
        bootstrap(lambda a: None, x),
    ):
        assert found.value is None
        assert found.low is None
        assert found.reason
    perfect = spearman(x, x)
    assert perfect.value == 1
    assert perfect.low is None
    assert "no interval" in perfect.reason


def test_counts_that_differ_and_nan_are_refused():
    with pytest.raises(UserError, match="x of 3, y of 2 samples given"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(UserError, match=r"y\[1\] = nan given"):
        spearman([1, 2, 3], [1, float("nan"), 2])
    with pytest.raises(UserError, match="expected one number per sample"):
        spearman(torch.zeros(3, 2), [1, 2, 3])
    with pytest.raises(UserError, match="expected at least one sample"):
        spearman([], [])


def test_the_bootstrap_covers_a_mean_and_keeps_pairs():
    rng = np.random.default_rng(6)
    inside = 0
    for seed in range(300):
        inside += (lambda e: e.low <= 0 <= e.high)(
            bootstrap(np.mean, rng.standard_normal(40), resamples=200, seed=seed)
        )
    assert 0.89 <= inside / 300 <= 0.98
    x = rng.standard_normal(50)
    found = bootstrap(lambda a, b: float(np.corrcoef(a, b)[0, 1]), x, 2 * x, resamples=100)
    assert found.low == pytest.approx(1)
    rare = np.r_[1.0, np.zeros(19)]
    some = bootstrap(lambda a: None if a.sum() == 0 else a.mean(), rare, resamples=200)
    assert some.value == pytest.approx(0.05)
    assert some.low is None
    assert "resamples" in some.reason
