"""The combination of replicates: a worked example, what must hold of any, and the coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from fm_lightning.errors import UserError
from fm_lightning.verdicts.random_effects import combine


def test_by_hand_with_equal_errors():
    """With equal errors s, tau^2 is the sample variance minus s^2, and the weights are equal."""
    found = combine([1.0, 3.0, 8.0], [1.0, 1.0, 1.0])  # mean 4, sample variance (9 + 1 + 16) / 2 = 13
    assert found.value == pytest.approx(4.0)
    assert found.tau == pytest.approx(math.sqrt(12.0))
    assert found.error == pytest.approx(math.sqrt(13.0 / 3))
    assert found.i_squared == pytest.approx(12.0 / 13.0)
    reach = 4.302652729696  # of t with two degrees of freedom, from a table
    assert (found.low, found.high) == pytest.approx(
        (4 - reach * math.sqrt(13 / 3), 4 + reach * math.sqrt(13 / 3)), rel=1e-9
    )
    wide = reach * math.sqrt(12 + 13 / 3)
    assert found.prediction == pytest.approx((4 - wide, 4 + wide), rel=1e-9)


def test_by_hand_with_other_errors_and_no_spread():
    """Two that agree: weights 1 / s^2, and q is held at 1."""
    found = combine([0.0, 1.0], [1.0, 2.0])  # Q = 1 / (1 + 4) = 0.2 <= 1, so tau = 0
    assert (found.tau, found.i_squared) == (0.0, 0.0)
    assert found.value == pytest.approx(0.2)  # (0 * 1 + 1 * 1/4) / (5/4)
    assert found.error == pytest.approx(math.sqrt(0.8))
    assert found.high == pytest.approx(0.2 + 12.706204736 * math.sqrt(0.8), rel=1e-9)
    assert found.prediction is None, "of two replicates"


numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
replicates = st.lists(st.tuples(numbers, st.floats(0.01, 10)), min_size=2, max_size=8)


@given(replicates, st.floats(-50, 50), st.floats(0.01, 100))
def test_moves_and_scales_with_the_effects(pairs, shift, scale):
    y, s = map(list, zip(*pairs))
    one = combine(y, s)
    other = combine([shift + scale * v for v in y], [scale * e for e in s])
    size = scale * (max(map(abs, y)) + max(s)) + abs(shift)
    assert other.value == pytest.approx(shift + scale * one.value, abs=1e-5 * size)
    assert other.error == pytest.approx(scale * one.error, abs=1e-5 * size)
    assert other.tau == pytest.approx(scale * one.tau, abs=1e-5 * size)
    assert min(y) - 1e-9 <= one.value <= max(y) + 1e-9
    assert one.low <= one.value <= one.high
    if one.tau > 0:  # Paule and Mandel's equation
        w = 1 / (one.tau**2 + np.square(s))
        assert w @ (np.array(y) - one.value) ** 2 == pytest.approx(len(y) - 1, rel=1e-4)
    assert one.error >= 1 / math.sqrt((1 / (one.tau**2 + np.square(s))).sum()) * (1 - 1e-9)


def test_exact_effects_have_no_error_of_their_own():
    found = combine([1.0, 2.0, 6.0], [0.0, 0.0, 0.0])
    y = np.array([1.0, 2.0, 6.0])
    assert found.value == pytest.approx(3.0)
    assert found.high == pytest.approx(3 + t.ppf(0.975, 2) * y.std(ddof=1) / math.sqrt(3))
    assert found.i_squared == pytest.approx(1.0)
    nothing = combine([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert (nothing.value, nothing.low, nothing.high, nothing.tau) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "given_", [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [1.0, 1.0]), ([1, 2], [1, -1])]
)
def test_refuses_what_cannot_be_combined(given_):
    with pytest.raises(UserError, match="at least two finite"):
        combine(*given_)


@pytest.mark.parametrize(
    ("k", "tau", "covers", "predicts"),
    [(3, 0.0, 0.98, 0.98), (3, 3.0, 0.94, 0.90), (5, 1.0, 0.94, 0.86), (10, 10.0, 0.925, 0.925), (2, 10.0, 0.94, None)],
)
def test_simulated_coverage(k, tau, covers, predicts):
    """At least what the module's docstring says, less what 1000 repetitions leave open."""
    rng = np.random.default_rng(k)
    n = 1000
    inside = predicted = 0
    for _ in range(n):
        s = rng.uniform(0.7, 1.4, k)
        found = combine(tau * rng.standard_normal(k) + s * rng.standard_normal(k), s)
        inside += found.low <= 0 <= found.high
        if found.prediction is not None:
            predicted += found.prediction[0] <= tau * rng.standard_normal() <= found.prediction[1]
    assert inside / n >= covers
    assert predicts is None or predicted / n >= predicts
