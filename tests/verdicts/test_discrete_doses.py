"""Doses that merely exist: checkpoints of one training run, left out one by one, and calibration by bisection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.estimate import Estimate
from fm_lightning.verdicts.doses import WIDEST, choose_doses, next_doses, spacing
from fm_lightning.verdicts.residual import Observed, residual

# Digits, 2,000 seeds: F_mem in percent and extrapolated distance at steps 5,000, 4,750, ... 3,000.
MEMORIZED = (70.4, 69.2, 65.8, 63.8, 60.8, 55.4, 50.2, 46.3, 41.7)
DISTANCES = (6.00, 6.15, 6.60, 6.90, 7.29, 7.83, 8.06, 8.73, 9.31)
FAR = ((70.4, 6.00), (60.8, 7.29), (50.2, 8.06), (41.7, 9.31), (30.5, 11.2), (16.3, 13.7), (5.2, 18.9), (0.2, 29.4))


def checkpoint(percent, distance, n=2000, rng=None):
    hits = np.arange(n) < round(percent / 100 * n)
    q = np.zeros(n) if rng is None else rng.standard_normal(n)
    return Observed(hits, Estimate.of(distance, q - q.mean()))


@pytest.mark.parametrize("gap", [1, 2])
def test_a_checkpoint_left_out_is_no_better_and_no_worse_than_its_neighbours(gap):
    """Against the margin of 4% of the baseline plus 1 point."""
    rows = [checkpoint(*pair) for pair in zip(MEMORIZED, DISTANCES)]
    for i in range(gap, len(rows) - 2 * gap):
        found = residual(rows[i], [rows[i - gap], rows[i + gap], rows[i + 2 * gap]], "frechet", discrete=0.0)
        assert abs(found.estimate.value) < 1.25 * (0.04 * 6 + 0.01 * abs(found.slope))


def test_far_apart_the_logarithmic_curve_misses_less():
    rows, worst = [checkpoint(*pair) for pair in FAR], {}
    for discrete in (None, 0.0):
        found = [residual(rows[i], [rows[i - 1], *rows[i + 1 : i + 3]], "frechet", discrete) for i in range(1, 6)]
        worst[discrete] = max(abs(each.estimate.value) / (0.24 + 0.01 * abs(each.slope)) for each in found)
    assert worst[0.0] < 2 < worst[None]


def test_the_error_is_the_derivative_by_seeds():
    rng = np.random.default_rng(0)
    latent = rng.random(400)
    rows = []
    for share in (0.5, 0.6, 0.45, 0.3):
        q = 3 + 4 * (1 - share) + rng.standard_normal(400)
        rows.append((latent < share, q))

    def value(weights):
        shares = [np.average(hits, weights=weights) for hits, _ in rows]
        u, w = (
            np.log(np.divide(shares, np.subtract(1, shares))),
            np.log([np.average(q, weights=weights) for _, q in rows]),
        )
        return np.exp(w[0]) - np.exp(np.polyval(np.polyfit(u[1:], w[1:], 2), u[0]))

    even = np.ones(400)
    observed = [Observed(hits, Estimate.of(float(q.mean()), q - q.mean())) for hits, q in rows]
    found = residual(observed[0], observed[1:], "frechet", discrete=0.0).estimate
    assert found.value == pytest.approx(value(even), rel=1e-9)
    change = np.empty(400)
    for i in range(400):
        bent = even.copy()
        bent[i] += 1e-6
        change[i] = (value(bent) - value(even)) / 1e-6 * 400
    assert found.error == pytest.approx(np.std(change, ddof=1) / 20, rel=1e-3)


N = 2000
LATENT = np.random.default_rng(0).permutation(N)


def hits(memorized):
    return round(memorized * N) > LATENT


def bisected(curve, target, ladder):
    """The doses that bisection samples, in order."""
    known, order = {0.0: hits(curve(0.0))}, []
    while doses := next_doses(known, hits(target), N, ladder):
        assert not set(doses) & set(known)
        order += doses
        known |= {dose: hits(curve(dose)) for dose in doses}
    return known, order


@settings(deadline=None)
@given(count=st.integers(4, 120), place=st.floats(0.05, 0.95), power=st.floats(0.5, 3))
def test_bisection_closes_in_on_the_schedule(count, place, power):
    ladder = [i / (count - 1) for i in range(count)]

    def curve(dose):
        return 0.7 - 0.6 * dose**power

    target = 0.7 - 0.6 * place
    known, order = bisected(curve, target, ladder)
    assert len(order) <= 2 + np.ceil(np.log2(count))
    shares, reached = {dose: float(np.mean(each)) for dose, each in known.items()}, float(np.mean(hits(target)))
    low = max(dose for dose, share in shares.items() if share >= reached)
    high = min(dose for dose, share in shares.items() if share <= reached)
    close = curve(low) - curve(high) <= WIDEST * spacing(target, 0.0) + 2 / N
    assert close or ladder.index(high) - ladder.index(low) == 1
    (three,) = choose_doses(known, hits(target), N, ladder)
    assert set(three) <= set(ladder)
    assert len(set(three)) == 3
    if count > 40:  # at the ends and between few doses the nearest ones are not enough
        assert curve(three[0]) + 0.03 >= target >= curve(three[2]) - 0.03


def test_a_typical_family_takes_four_or_five_samplings():
    ladder = [i / 40 for i in range(41)]
    counts = [len(bisected(lambda dose: 0.7 * np.exp(-((3 * dose) ** 2)), m, ladder)[1]) for m in (0.65, 0.5, 0.3, 0.1)]
    assert set(counts) == {4, 5}


def test_schedules_meet_at_the_same_doses():
    ladder = [i / 40 for i in range(41)]
    (_, one), (_, two) = (bisected(lambda dose: 0.7 - 0.6 * dose, m, ladder) for m in (0.3, 0.35))
    assert one == two


def test_a_dip_between_the_ends_is_found():
    """Both ends copy more than the schedule."""
    ladder = [0.0, 0.25, 0.5, 0.75, 1.0]
    known, _ = bisected(lambda dose: 0.2 + 0.8 * abs(dose - 0.5), 0.35, ladder)
    assert len(choose_doses(known, hits(0.35), N, ladder)) == 2


def test_bisection_stops_where_the_family_does_not_reach_the_schedule():
    known, order = bisected(lambda dose: 0.7 - 0.4 * dose, 0.1, [0.0, 0.25, 0.5, 0.75])
    assert order == [0.5, 0.75]
    assert choose_doses(known, hits(0.1), N, [0.0, 0.25, 0.5, 0.75]) == []
