"""The residual to a family's curve and its error, against derivatives, redraws and hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.verdicts.margins import Margin, Margins, resolution
from fm_lightning.verdicts.residual import Observed, relative, residual


def means(hits, contributions, reference=None):
    """A row whose distance is the mean of contributions, so that everything about it is known."""
    return Observed(
        np.asarray(hits, dtype=bool),
        kernel=Estimate.of(float(np.mean(contributions)), contributions - np.mean(contributions), reference),
    )


def drawn(rng, n, memorized, shift=0.0, latent=None):
    latent = rng.random(n) if latent is None else latent
    hits = latent < memorized
    return hits, shift + (1 - memorized) ** 2 + 0.3 * rng.standard_normal(n) + 0.2 * hits


def four(seed, n, at=0.5, nodes=(0.6, 0.52, 0.41)):
    rng = np.random.default_rng(seed)
    latent = rng.random(n)
    return [drawn(rng, n, memorized, latent=latent) for memorized in (at, *nodes)]


def through(weights, rows):
    """The residual from seeds with weights: what the plain formula gives, by interpolation alone."""
    share = [np.average(hits, weights=weights) for hits, _ in rows]
    value = [np.average(q, weights=weights) for _, q in rows]
    return value[0] - np.polyval(np.polyfit(share[1:], value[1:], 2), share[0])


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([101, 500]))
def test_value_and_error_are_the_plain_formula_and_its_derivative_by_seeds(seed, n):
    rows = four(seed, n)
    found = residual(means(*rows[0]), [means(*row) for row in rows[1:]], "kernel")
    if found is None:  # a small draw may lie outside its neighbours
        shares = [row[0].mean() for row in rows]
        assert not min(shares[1:]) <= shares[0] <= max(shares[1:]) or len(set(shares[1:])) < 3
        return
    even = np.ones(n)
    assert found.estimate.value == pytest.approx(through(even, rows), rel=1e-9, abs=1e-10)
    f, step = np.empty(n), 1e-6
    for i in range(n):
        bent = even.copy()
        bent[i] += step
        f[i] = (through(bent, rows) - through(even, rows)) / step * n
    assert found.estimate.error == pytest.approx(np.std(f, ddof=1) / np.sqrt(n), rel=1e-3)


def test_the_error_is_the_spread_of_redraws():
    values, errors = [], []
    for seed in range(400):
        rows = four(seed, 800)
        found = residual(means(*rows[0]), [means(*row) for row in rows[1:]], "kernel")
        if found is not None:
            values.append(found.estimate.value)
            errors.append(found.estimate.error)
    assert len(values) > 390
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_a_point_of_the_family_itself_has_no_residual():
    rows = [means(*row) for row in four(3, 300)]
    for point in rows[1:]:
        found = residual(point, rows[1:], "kernel")
        assert found.estimate.value == pytest.approx(0, abs=1e-12)
        assert found.estimate.error == pytest.approx(0, abs=1e-12)


def test_the_order_of_points_does_not_matter():
    rows = [means(*row) for row in four(4, 300)]
    first, second = (residual(rows[0], points, "kernel") for points in (rows[1:], rows[:0:-1]))
    assert first.estimate.value == pytest.approx(second.estimate.value, rel=1e-9)
    assert first.estimate.error == pytest.approx(second.estimate.error, rel=1e-9)


def test_the_slope_is_that_of_the_parabola():
    nodes, n = (0.25, 0.5, 0.75), 100
    points = [means(np.arange(n) < round(m * n), np.full(n, 2 + (m - 1) ** 2)) for m in nodes]
    found = residual(means(np.arange(n) < 40, np.full(n, 2.36)), points, "kernel")
    assert found.slope == pytest.approx(2 * (0.4 - 1))
    assert found.estimate.value == pytest.approx(2.36 - 2 - 0.36)


def test_outside_the_three_points_is_out_of_reach():
    rows = [means(*row) for row in four(5, 500, at=0.3)]
    assert residual(rows[0], rows[1:], "kernel") is None
    rows = [means(*row) for row in four(5, 500)]
    assert residual(rows[0], [rows[1], rows[1], rows[2]], "kernel") is None, "two points say nothing of a curve"


def test_the_reference_s_error_adds_in_quadrature():
    rng = np.random.default_rng(0)
    rows = four(6, 400)
    own = [rng.standard_normal(50) for _ in rows]
    alone = residual(means(*rows[0]), [means(*row) for row in rows[1:]], "kernel")
    both = residual(
        means(*rows[0], own[0]), [means(*row, reference) for row, reference in zip(rows[1:], own[1:])], "kernel"
    )
    shares = [hits.mean() for hits, _ in rows]
    weights = [np.prod([(shares[0] - b) / (a - b) for b in shares[1:] if b != a]) for a in shares[1:]]
    g = own[0] - sum(weight * reference for weight, reference in zip(weights, own[1:]))
    assert both.estimate.value == alone.estimate.value
    assert both.estimate.error == pytest.approx(np.hypot(alone.estimate.error, np.std(g, ddof=1) / 50**0.5))
    # Contributions that all rows share cancel.
    common = residual(means(*rows[0], own[0]), [means(*row, own[0]) for row in rows[1:]], "kernel")
    assert common.estimate.error == pytest.approx(alone.estimate.error)
    # A claim about just these real images leaves them out.
    assert both.estimate.conditional.error == alone.estimate.error


@pytest.mark.parametrize("distance", [1.0, -1.0])
def test_rough_curves_add_to_the_error(distance):
    """In logarithms, and where these do not exist."""
    base, *points = [means(hits, distance + q - q.mean()) for hits, q in four(7, 400)]
    smooth, rough = (residual(base, points, "kernel", roughness).estimate for roughness in (0.0, 0.02))
    added = np.sqrt(rough.error**2 - smooth.error**2)
    assert rough.value == smooth.value
    assert 0.02 * 0.5 < added < 0.02 * 1.2, "weights of three points add up to 1"
    assert distance < 0 or relative(rough, base.kernel).extra == pytest.approx(added / base.kernel.value)


def test_a_share_of_the_baseline_carries_the_baseline_s_error():
    """Blocks of seeds of one world: the reported error is the spread between them; without the baseline's it is not."""
    changes, errors, naive = [], [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        common = rng.standard_normal(400)
        base, row = 1 + common, 2 + 1.2 * common + 0.3 * rng.standard_normal(400)
        before, after = (Estimate.of(float(x.mean()), x - x.mean()) for x in (base, row))
        share = relative(after - before, before)
        changes.append(share.value)
        errors.append(share.error)
        naive.append((after - before).error / before.value)
    assert np.mean(errors) == pytest.approx(np.std(changes), rel=0.1)
    assert np.std(changes) > 1.5 * np.mean(naive)


def test_nothing_is_divided_by_a_baseline_near_0():
    change = Estimate.of(0.1, np.array([-0.1, 0.1]))
    assert relative(change, Estimate.of(1.0, np.array([-0.1, 0.1]))) is not None
    for value in (0.3, 0.0, -1.0):
        assert relative(change, Estimate.of(value, np.array([-0.1, 0.1]))) is None


def test_margins():
    assert Margins().resolve(0.65, 12.0) == Margin(0.01, 0.24)
    assert Margins().resolve(0.04, 12.0) == Margin(0.004, 0.24)
    assert Margins().resolve(0.65, 12.0, 0.5, 998) == Margin(0.01, 0.5, 0.5, 998)
    assert Margins().resolve(0.65, 12.0, 0.1, 998) == Margin(0.01, 0.24, 0.1, 998)
    assert Margins(0.02, 0.5, 0.05).resolve(0.65, 10.0).at(-3.0) == pytest.approx(0.5 + 0.06)
    for name in ("memorized", "of_base", "quality"):
        for value in (0.0, -0.01, 1.0, float("nan")):
            with pytest.raises(UserError, match=f"{name}="):
                Margins(**{name: value})


def test_the_floor_depends_on_the_real_images_alone():
    held_out = Estimate.of(0.0, np.tile([-3.0, 3.0], 200))
    assert resolution(held_out, 900) == pytest.approx(2 * 3 / 30, rel=1e-2)


def test_what_is_refused():
    rows = [means(*row) for row in four(8, 100)]
    with pytest.raises(UserError, match="needs 3 points, not 2"):
        residual(rows[0], rows[1:3], "kernel")
    with pytest.raises(UserError, match="frechet distance"):
        residual(rows[0], rows[1:], "frechet")
    with pytest.raises(UserError, match="over these seeds"):
        Observed(rows[0].hits, kernel=Estimate.of(1.0, np.zeros(7))).quality("kernel")
