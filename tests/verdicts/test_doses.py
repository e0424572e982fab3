"""Choosing doses on calibration curves whose truth is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.comparison.families import families
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule
from fm_lightning.verdicts.doses import choose_doses, spacing

N = 4000
LATENT = np.random.default_rng(0).standard_normal(N)
COARSE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def hits(memorized, n=N):
    return LATENT[:n] < NormalDist().inv_cdf(memorized)


def falling(dose):
    return 0.7 - 0.5 * dose**1.3


def curve(of, doses=COARSE, n=N):
    return {dose: hits(of(dose), n) for dose in doses}


@pytest.mark.parametrize(
    ("memorized", "error", "want"),
    [(0.5, 0.0, 0.06), (0.5, 0.02, 0.08), (0.05, 0.0, 0.03), (0.95, 0.0, 0.03), (0.5, 0.2, 0.3)],
)
def test_spacing(memorized, error, want):
    assert spacing(memorized, error) == pytest.approx(want)


@settings(max_examples=60, deadline=None)
@given(target=st.floats(0.28, 0.62))
def test_the_doses_enclose_the_schedule_at_the_wanted_distances(target):
    (three,) = choose_doses(curve(falling), hits(target), 2000)
    assert list(three) == sorted(three)
    reached = [falling(dose) for dose in three]
    np.testing.assert_allclose(reached, [target + 0.06, target, target - 0.06], atol=0.025)


def test_base_stands_in_for_doses_below_zero():
    for target in (0.69, 0.70, 0.72):
        (three,) = choose_doses(curve(falling), hits(target), 2000)
        assert three[0] == 0
        assert falling(three[0]) - falling(three[1]) > 0.015, "points apart enough to know a slope from"
        assert falling(three[1]) - falling(three[2]) > 0.015
    assert choose_doses(curve(falling), hits(0.8), 2000) == []


def test_the_lowest_dose_stands_in_for_those_beyond_it():
    (three,) = choose_doses(curve(falling), hits(0.22), 2000)
    assert three[2] == pytest.approx(1.0, abs=0.02)
    assert choose_doses(curve(falling), hits(0.1), 2000) == []


def test_a_curve_that_turns_round_is_crossed_at_every_place():
    def turning(dose):
        return 0.7 - 0.9 * dose if dose <= 0.5 else 0.25 + 0.6 * (dose - 0.5)

    first, second = choose_doses(curve(turning, (0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0)), hits(0.4), 2000)
    assert first[1] == pytest.approx(1 / 3, abs=0.03)
    assert second[1] == pytest.approx(0.75, abs=0.03)
    # 0.6 is above all that the curve reaches after its turn.
    (only,) = choose_doses(curve(turning, (0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0)), hits(0.6), 2000)
    assert only[1] == pytest.approx(1 / 9, abs=0.03)


def test_a_rise_first_is_a_place_of_its_own():
    def hump(dose):
        return 0.6 + dose if dose <= 0.1 else 0.7 - 0.6 * (dose - 0.1)

    (three,) = choose_doses(curve(hump), hits(0.5), 2000)
    assert hump(three[1]) == pytest.approx(0.5, abs=0.03)
    assert len(choose_doses(curve(hump), hits(0.65), 2000)) == 2


def test_noise_is_no_turn():
    rng = np.random.default_rng(1)
    for _ in range(20):
        calibrated = {dose: rng.random(600) < falling(dose) for dose in COARSE}
        assert len(choose_doses(calibrated, rng.random(600) < 0.45, 2000)) == 1


@settings(max_examples=40, deadline=None)
@given(steps=st.sampled_from([4, 7, 20, 100]), target=st.floats(0.2, 0.75))
def test_whole_numbers_are_rounded_to_different_ones(steps, target):
    base = Schedule(steps=steps)
    (family,) = [f for f in families(base) if f.name == "fewer steps"]
    calibrated = {dose: hits(0.7 - 0.5 * dose / family.doses[-1]) for dose in (0.0, *family.doses)}
    for three in choose_doses(calibrated, hits(target), 2000, family.existing(base)):
        assert set(three) <= set(family.existing(base))
        assert len(set(three)) == 3
        assert max(three) <= family.doses[-1]
        assert len({family.at(base, dose).steps for dose in three}) == 3


def test_a_family_that_does_nothing_reaches_nothing():
    assert choose_doses(curve(lambda dose: 0.7), hits(0.6), 2000) == []
    assert choose_doses(curve(lambda dose: 0.7), hits(0.7), 2000) == []


def test_what_is_refused():
    with pytest.raises(UserError, match="at least 500"):
        choose_doses(curve(falling, n=499), hits(0.5, 499), 2000)
    with pytest.raises(UserError, match="dose 0"):
        choose_doses(curve(falling, COARSE[1:]), hits(0.5), 2000)
    with pytest.raises(UserError, match="same seeds"):
        choose_doses(curve(falling), hits(0.5, 600), 2000)
