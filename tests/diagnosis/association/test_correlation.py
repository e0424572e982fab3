"""Rank correlations against scipy, a closed form, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fm_lightning.diagnosis.association.correlation import partial_spearman, resampled, spearman
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
        assert (found.low is None) == (n < 10)
        assert n < 10 or found.low <= found.value <= found.high


def test_an_interval_holds_its_value_where_one_value_is_rare():
    """One sample of 13 differs in x: every third resample lacks it, and the others' upper end lay below rho."""
    rng = np.random.default_rng(45)
    x, y = rng.integers(2, size=13), rng.standard_normal(13).round(1)
    found = spearman(x, y)
    assert found.low < found.value == found.high


def test_resamples_are_ranked_as_resamples():
    """With ties, by hand: the correlation of the ranks of the very samples that came up."""
    rng = np.random.default_rng(7)
    x, y = rng.integers(6, size=30).astype(float), rng.standard_normal(30).round(1)
    drawn = resampled(x, y, ranked=True, resamples=20, seed=3)
    counts = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=20)
    for rho, many in zip(drawn, counts):
        rows = np.repeat(np.arange(30), many)
        assert rho == pytest.approx(spearmanr(x[rows], y[rows]).statistic, abs=1e-12)


def gaussian(rng, n):
    """Whose Spearman correlation is ``6 / pi arcsin(rho / 2)``."""
    z = rng.standard_normal((2, n))
    return spearman(z[0], -0.85 * z[0] + math.sqrt(1 - 0.85**2) * z[1])


def spread(rng, n):
    """Uncorrelated, but the spread of y depends on x; intervals with Fisher's transform cover 85%."""
    x = rng.standard_normal(n)
    return spearman(x, x * rng.standard_normal(n))


def lines(rng, n):
    """Independent given w and the class, lines in each class."""
    w, label = rng.standard_normal(n), rng.integers(5, size=n)
    x, y = (w + label + rng.standard_normal(n) for _ in range(2))
    return partial_spearman(x, y, {"w": w}, label)


def curves(rng, n):
    """Independent given w, on which both depend along curves."""
    w = rng.standard_normal(n)
    return partial_spearman(w**3 + rng.standard_normal(n), np.exp(w) + rng.standard_normal(n), {"w": w})


@pytest.mark.parametrize(
    ("draw", "n", "truth"),
    [
        (gaussian, 60, 6 / math.pi * math.asin(-0.85 / 2)),
        (spread, 200, 0.0),
        (lines, 256, 0.0),
        pytest.param(lines, 1000, 0.0, marks=pytest.mark.slow),
        pytest.param(curves, 1000, 0.0, marks=pytest.mark.slow),
    ],
)
def test_bias_and_coverage(draw, n, truth):
    rng = np.random.default_rng(0)
    found = [draw(rng, n) for _ in range(150)]
    standard_error = np.std([each.value for each in found]) / math.sqrt(len(found))
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=3 * standard_error + 0.005)
    assert 0.89 <= np.mean([each.low <= truth <= each.high for each in found]) <= 1


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
    assert partial_spearman(x, y).low == pytest.approx(spearman(x, y).low, abs=0.1)


def test_undefined_is_said_and_never_nan():
    x = np.arange(6.0)
    for found in (
        spearman(x, np.ones(6)),
        spearman([1.0], [2.0]),
        spearman([1, 2], [2, 1]),
        partial_spearman(x, x**2, {"same": x}),
        partial_spearman(np.zeros(6), x),
    ):
        assert found.value is None
        assert found.low is None
        assert found.reason
    perfect = spearman(x, x)
    assert perfect.value == 1
    assert perfect.low is None
    assert "no interval" in perfect.reason


def test_counts_that_differ_and_nan_are_refused():
    with pytest.raises(UserError, match="x of 3, y of 2"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(UserError, match=r"y\[1\] is nan"):
        spearman([1, 2, 3], [1, float("nan"), 2])
    with pytest.raises(UserError, match="one number per sample"):
        spearman(torch.zeros(3, 2), [1, 2, 3])
    with pytest.raises(UserError, match="at least one"):
        spearman([], [])
