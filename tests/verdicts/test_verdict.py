"""Verdicts from hand-made rows: each outcome, each refusal, and the corrections for many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.estimate import Estimate
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.outcomes import Alternative, FamilyVerdict, confirm, holm
from fm_lightning.verdicts.residual import Observed
from fm_lightning.verdicts.verdict import HeldOut, judging_distance, verdict

N = 400
PATTERN = np.where(np.arange(N) % 2, 1.0, -1.0)  # mean 0, of standard deviation 1; no part of being a copy


def row(memorized, value, error=0.0, frechet=None, n=N):
    """A row whose distance is known to ``error``; the copies of fewer are among those of more."""
    hits = np.arange(n) < round(memorized * n)
    kernel = Estimate.of(value, error * np.sqrt(n - 1) * PATTERN[:n]) if value is not None else None
    return Observed(hits, kernel=kernel, frechet=frechet)


BASE = row(0.65, 1.0)
FLAT = [row(m, 1.0) for m in (0.60, 0.54, 0.48)]  # m = dQ = 0.02


def against(schedule, base=BASE, **families):
    return verdict("mine", schedule, base, {name: [points] for name, points in families.items()}, width=1000)


@pytest.mark.parametrize(
    ("value", "error", "outcome", "n_needed"),
    [
        (0.95, 0.01, "better", None),
        (0.95, 0.0, "better", None),
        (0.985, 0.001, "no better", None),  # lower beyond chance, and excluded to be lower by the margin
        (1.0, 0.005, "no better", None),
        (1.015, 0.001, "no better", None),  # higher beyond chance, but not by the margin
        (1.05, 0.03, "no better", None),  # higher by more than the margin, perhaps by chance
        (1.05, 0.01, "worse", None),
        (1.2, 0.005, "worse", None),
        (0.97, 0.016, "undecided", N * (2.8 * 0.016 / 0.03) ** 2),
        (1.0, 0.011, "undecided", N * (2.8 * 0.011 / 0.02) ** 2),
        (1.02, 0.023, "undecided", N * (2.8 * 0.023 / 0.04) ** 2),
        (0.985, 0.01, "undecided", None),  # 31 times the seeds: known to no digit
    ],
)
def test_the_four_outcomes(value, error, outcome, n_needed):
    found = against(row(0.54, value, error), flat=FLAT)
    (family,) = found.families
    assert family.outcome == found.outcome == outcome
    assert family.margin == pytest.approx(0.02)
    assert family.residual.value == pytest.approx(value - 1)
    assert family.residual.error == pytest.approx(error, abs=1e-9)
    assert family.relative.value == pytest.approx(value - 1)
    assert family.n_needed == (None if n_needed is None else pytest.approx(n_needed, abs=1))


@given(value=st.floats(0.8, 1.2), error=st.floats(0, 0.1))
def test_what_the_definitions_say(value, error):
    found = against(row(0.54, value, error), flat=FLAT).families[0]
    r, m = found.residual, found.margin
    assert (found.outcome == "better") == (r.value + 1.95997 * r.error < 0 and r.value < -m)
    assert (found.outcome == "worse") == (r.value - 1.95996 * r.error > 0 and r.value > m)
    # The middle dose has the schedule's own memorization, so a dose excludes what the curve does.
    assert (found.outcome in ("no better", "worse")) == (r.value - 1.95996 * r.error > -m)
    assert found.n_needed is None or (found.outcome == "undecided" and N < found.n_needed <= 3 * N)


def test_the_margin_prices_memorization_by_the_slope():
    steep = [row(m, 1 + 4 * (0.65 - m)) for m in (0.60, 0.54, 0.48)]
    (family,) = against(row(0.54, 1.3), steep=steep).families
    assert family.slope == pytest.approx(-4)
    assert family.margin == pytest.approx(0.02 + 4 * 0.01)
    assert family.residual.value == pytest.approx(1.3 - 1.44)
    assert family.fewer_copies == pytest.approx(-0.14 / 4)
    nearly_flat = [row(m, 1 + 0.01 * (0.65 - m)) for m in (0.60, 0.54, 0.48)]
    (family,) = against(row(0.54, 0.9), flat=nearly_flat).families
    assert family.fewer_copies is None, "1,000 points fewer copies is nothing that a dose could do"
    (rising,) = against(row(0.54, 0.9), rising=[row(m, 1 - (0.65 - m)) for m in (0.60, 0.54, 0.48)]).families
    assert rising.fewer_copies is None, "fewer copies cost nothing there"


def test_out_of_reach_unless_a_dose_does_as_well():
    found = verdict("mine", row(0.45, 0.9), BASE, {"flat": []}, width=1000)
    assert found.families == (FamilyVerdict("flat", "out of reach"),)
    assert found.outcome == "out of reach"
    # Doses that were chosen to reach it, and miss it: nothing can be said, least of all that it is better.
    missed = against(row(0.45, 0.9), flat=FLAT)
    assert missed.outcome == "undecided"
    assert missed.families[0].missed
    assert missed.families[0].n_needed is None
    # 0.62 lies outside the three points too, but 0.54 at the same distance is no worse.
    found = against(row(0.62, 1.0, 0.001), flat=FLAT)
    assert found.outcome == "no better"
    assert found.families[0].by_dose


@pytest.mark.parametrize(("memorized", "value", "outcome"), [(0.54, 1.0, "no better"), (0.54, 1.03, "undecided")])
def test_a_dose_has_to_do_as_well_in_both(memorized, value, outcome):
    """The schedule lies above all three points in M, so that only a single dose can explain it."""
    points = [row(m, value) for m in (memorized, 0.45, 0.40)]
    assert against(row(0.62, 1.0, 0.001), one=points).outcome == outcome
    assert against(row(0.5475, 1.0, 0.001), one=points[:1] + [row(m, 1.1) for m in (0.45, 0.40)]).outcome == outcome


def test_it_has_to_win_wherever_the_curve_reaches_it():
    schedule, lower = row(0.54, 0.95, 0.005), [row(m, 0.9) for m in (0.60, 0.54, 0.48)]
    both = verdict("mine", schedule, BASE, {"turning": [FLAT, lower]}, width=1000)
    assert both.outcome == "worse"
    twice = verdict("mine", schedule, BASE, {"turning": [FLAT, FLAT]}, width=1000)
    assert twice.outcome == "better"
    missed = verdict("mine", schedule, BASE, {"turning": [FLAT, [row(m, 1.0) for m in (0.5, 0.4, 0.3)]]}, width=1000)
    assert missed.outcome == "undecided"


def test_one_family_that_explains_is_enough_and_one_undecided_too_many():
    schedule = row(0.54, 0.95, 0.005)
    lower, near = ([row(m, value) for m in (0.60, 0.54, 0.48)] for value in (0.9, 0.96))
    assert against(schedule, flat=FLAT).outcome == "better"
    assert against(schedule, flat=FLAT, lower=lower).outcome == "worse"
    alike = [row(m, 0.95) for m in (0.60, 0.54, 0.48)]
    assert against(schedule, flat=FLAT, alike=alike).outcome == "no better"
    assert against(schedule, flat=FLAT, near=near).outcome == "undecided"
    assert against(schedule, flat=FLAT, missed=[row(m, 1.0) for m in (0.5, 0.4, 0.3)]).outcome == "undecided"
    assert verdict("mine", schedule, BASE, {"flat": [FLAT], "never": []}, width=1000).outcome == "better"


def test_no_better_is_corrected_for_the_number_of_families():
    """2.3 standard errors from the margin: enough for one family, not for eight that are alike."""
    schedule = row(0.54, 1.003, 0.01)
    alone = against(schedule, one=FLAT)
    assert alone.outcome == "no better"
    among = against(schedule, **{f"family{i}": FLAT for i in range(8)})
    assert among.outcome == "undecided"
    for family in among.families:
        assert not family.by_dose
    clear = [row(m, 0.9) for m in (0.60, 0.54, 0.48)]
    mixed = against(schedule, clear=clear, **{f"family{i}": FLAT for i in range(7)})
    assert [f.outcome for f in mixed.families] == ["worse"] + 7 * ["undecided"]


def with_frechet(value, error):
    return Estimate.of(value, error * np.sqrt(N - 1) * PATTERN)


def test_better_needs_that_the_other_distance_does_not_contradict():
    base = row(0.65, 1.0, frechet=with_frechet(5.0, 0.0))
    points = [row(m, 1.0, frechet=with_frechet(5.0, 0.0)) for m in (0.60, 0.54, 0.48)]
    for value, error, outcome in ((5.1, 0.01, "no claim"), (5.1, 0.1, "better"), (4.9, 0.01, "better")):
        found = against(row(0.54, 0.95, 0.005, with_frechet(value, error)), base=base, flat=points)
        assert found.distance == "kernel"
        assert found.outcome == outcome
        assert found.families[0].disagrees == (outcome == "no claim")
        assert found.families[0].other.value == pytest.approx(value - 5)
    # A contradiction takes nothing from what is explained.
    found = against(row(0.54, 1.0, 0.005, with_frechet(5.1, 0.01)), base=base, flat=points)
    assert found.outcome == "no better"


def test_which_distance_judges():
    both = row(0.5, 1.0, frechet=with_frechet(1.0, 0.1))
    assert judging_distance(10_000, 1000, both) == "frechet"
    assert judging_distance(9999, 1000, both) == "kernel"
    assert judging_distance(9999, 1000, replace(both, kernel=None)) is None
    assert judging_distance(10, 1000, row(0.5, 1.0)) == "kernel"


def test_the_gate():
    """Upper bound of the fall below a point: nothing to explain, only the distance is reported."""
    big = 40_000
    base = Observed(np.arange(big) < 0.65 * big, kernel=Estimate.of(1.0, np.zeros(big)))
    same = Observed(base.hits, kernel=Estimate.of(0.9, np.zeros(big)))
    found = verdict("mine", same, base, {"flat": []}, width=big)
    assert found.outcome == "not lowered"
    assert found.families == ()
    assert found.quality_change.value == pytest.approx(-0.1)
    raised = verdict("mine", row(0.66, 1.0), row(0.65, 1.0), {"flat": [FLAT]}, width=1000)
    assert raised.outcome == "not lowered"


def test_not_lower_by_chance_alone_is_open():
    """Equal shares of unrelated seeds: a fall of a point is not excluded, and no family is to blame for not reaching it."""
    shuffled = Observed(np.roll(BASE.hits, 140), kernel=BASE.kernel)
    found = verdict("mine", shuffled, BASE, {"flat": [FLAT]}, width=1000)
    assert (found.outcome, found.refused) == ("no claim", "lowering open")
    assert found.n_needed is None, "many more"


def test_families_that_do_not_reach_it_are_blamed_only_where_it_lowers():
    """Lower by two points, which chance does as well, and no doses were chosen: no family can be said to fall short."""
    hits = np.roll(BASE.hits, 140)
    hits[np.flatnonzero(hits)[:8]] = False
    slightly = Observed(hits, kernel=BASE.kernel)
    found = verdict("mine", slightly, BASE, {"flat": [], "steep": []}, width=1000)
    assert found.lowered.value > 0 > found.lowered.low
    assert (found.outcome, found.refused, found.families) == ("no claim", "lowering open", ())
    assert verdict("mine", slightly, BASE, {"flat": [FLAT], "steep": []}, width=1000).families
    assert verdict("mine", row(0.54, 1.0), BASE, {"flat": []}, width=1000).outcome == "out of reach"


@pytest.mark.parametrize(
    ("schedule", "base", "refused", "needed"),
    [
        (row(0.03, 1.0), row(0.0475, 1.0), "few copies", 422),
        (row(0.03, 1.0), row(0.01, 1.0), "few copies", None),
        (row(0.54, 1.0), row(0.955, 1.0), "few others", 445),
        (row(0.54, None), row(0.65, None), "no distance", None),
        (row(0.54, 1.0), row(0.65, -0.1), "no margin", None),
        (row(0.54, 1.0), row(0.65, 0.0), "no margin", None),
    ],
)
def test_what_cannot_be_judged(schedule, base, refused, needed):
    found = verdict("mine", schedule, base, {"flat": [FLAT]}, width=1000)
    assert (found.outcome, found.refused, found.n_needed) == ("no claim", refused, needed)


def test_few_seeds_for_the_frechet_distance_alone():
    only = [replace(row(m, None), frechet=with_frechet(1.0, 0.1)) for m in (0.54, 0.65)]
    found = verdict("mine", *only, {}, width=100)
    assert (found.refused, found.n_needed) == ("few for Fréchet", 1000)
    assert verdict("mine", *only, {}, width=40).refused == "no family"


def test_the_margin_is_at_least_what_the_real_images_resolve():
    """Their number counts, and the number of seeds does not."""
    held_out = HeldOut(distances={"kernel": Estimate.of(0.0, np.tile([-1.0, 1.0], 50))}, references=400)
    found = verdict("mine", row(0.54, 0.95, 0.001), BASE, {"flat": [FLAT]}, width=1000, held_out=held_out)
    assert found.margin.quality == pytest.approx(2 / 20, rel=0.01)
    assert (found.margin.floor, found.margin.references) == (found.margin.quality, 400)
    assert found.outcome == "no better", "real data themselves differ by more"
    mine, base, *curve = (
        Observed(np.tile(r.hits, 4), kernel=Estimate.of(r.kernel.value, np.tile(r.kernel.influence, 4)))
        for r in (row(0.54, 0.95, 0.001), BASE, *FLAT)
    )
    found = verdict("mine", mine, base, {"flat": [curve]}, width=1000, held_out=held_out)
    assert found.margin.quality == pytest.approx(2 / 20, rel=0.01)
    tight = verdict("mine", row(0.54, 0.985, 0.001), BASE, {"flat": [FLAT]}, width=1000, margins=Margins(quality=0.01))
    assert tight.outcome == "better"


def test_a_verdict_is_on_these_real_images_and_its_percentages_on_all_such():
    """The real images' own error widens what is told in percent, and decides nothing."""
    images = np.tile([-1.0, 1.0], 50)

    def known(r, error):
        return Observed(r.hits, kernel=Estimate.of(r.kernel.value, r.kernel.influence, error * 10 * images))

    schedule = row(0.54, 0.95, 0.01)
    (alone,) = against(schedule, flat=FLAT).families
    found = against(known(schedule, 0.1), known(BASE, 0.0), flat=[known(r, 0.0) for r in FLAT])
    (family,) = found.families
    assert family.outcome == "better"
    assert family.residual.error == alone.residual.error
    assert family.relative.error == pytest.approx(np.hypot(alone.relative.error, 0.1), rel=0.01)
    assert found.relative_change.error == pytest.approx(np.hypot(found.quality_change.error, 0.1), rel=0.01)
    assert "those in % include the real images' error" in str(found)


def test_checkpoints_are_judged_with_their_roughness():
    """2% above a checkpoint's curve, known to .5% by the seeds alone."""
    schedule = row(0.54, 1.03, 0.005)
    smooth, rough = (
        verdict("mine", schedule, BASE, {"earlier": [FLAT]}, width=1000, discrete={"earlier": roughness}).families[0]
        for roughness in (0.0, 0.03)
    )
    assert smooth.outcome == "worse"
    assert rough.outcome != "worse"
    assert rough.n_needed is None, "no number of seeds makes training smoother"


def test_an_alternative_reverses_what_was_better_or_what_was_no_better():
    rows = {"a": row(0.54, 0.9, 0.01), "b": row(0.54, 1.1, 0.01), "c": row(0.54, 0.97, 0.016)}
    found = {name: against(schedule, flat=FLAT) for name, schedule in rows.items()}
    assert [v.outcome for v in found.values()] == ["better", "worse", "undecided"]

    def reversed_(first, second):
        groups = Alternative.of("x", found[second]).reverses(found[first])
        return {outcome: [family.family for family in some] for outcome, some in groups.items()}

    assert reversed_("a", "b") == {"worse": ["flat"]}
    assert reversed_("a", "c") == {"undecided": ["flat"]}
    assert reversed_("b", "a") == {"better": ["flat"]}
    assert reversed_("b", "c") == reversed_("c", "a") == reversed_("c", "b") == reversed_("a", "a") == {}
    missed = against(row(0.45, 0.9), flat=FLAT)
    assert missed.families[0].missed
    assert Alternative.of("x", missed).reverses(found["a"]) == {}, "its doses were not chosen for that definition"


def test_the_best_outcome_is_no_failure():
    """3 copies are left of 260: too few to compare, and the fall is known well."""
    few = Observed(np.arange(N) < 3, kernel=BASE.kernel)
    found = verdict("mine", few, BASE, {"flat": [FLAT]}, width=1000)
    assert (found.outcome, found.refused) == ("no claim", "few left")
    assert "leaves only 3 copies of 400 (−64.2 points [−" in found.sentence
    assert "no claim" not in found.sentence


@pytest.mark.parametrize(
    ("floor", "refused"),
    [(60, "nothing to lower"), (21, "floor open"), (2, None), (0, None)],
)
def test_copies_are_judged_above_those_of_held_out_data(floor, refused):
    base, mine = row(0.0525, 1.0), row(0.0525, 1.0)
    held_out = HeldOut(hits=np.arange(N) < floor)
    found = verdict("mine", mine, base, {"flat": []}, width=1000, held_out=held_out)
    assert found.refused == refused or (refused is None and found.refused != "nothing to lower")
    assert found.held_out_memorized == floor / N
    if refused == "nothing to lower":
        words = "mine has nothing to lower: plain sampling copies no more than held-out real data do (5.2% and 15.0%)."
        assert found.sentence == words


@pytest.mark.parametrize(("other", "outcome"), [(4.9, "no better"), (5.0, "worse"), (5.1, "worse")])
def test_worse_needs_that_the_other_distance_does_not_contradict(other, outcome):
    base = row(0.65, 1.0, frechet=with_frechet(5.0, 0.0))
    points = [row(m, 1.0, frechet=with_frechet(5.0, 0.0)) for m in (0.60, 0.54, 0.48)]
    found = against(row(0.54, 1.1, 0.005, with_frechet(other, 0.01)), base=base, flat=points)
    assert found.outcome == outcome


def test_worse_is_corrected_for_the_number_of_families_and_falls_back():
    """2.2 standard errors above the curves: enough for one family, not for eight that are alike."""
    schedule = row(0.54, 1.044, 0.02)
    assert against(schedule, one=FLAT).outcome == "worse"
    among = against(schedule, **{f"family{i}": FLAT for i in range(8)})
    assert {f.outcome for f in among.families} == {"no better"}


def test_a_lower_dose_of_a_dipping_curve_is_as_good_in_both():
    """At equal copies the curve lies above the schedule, but its next dose has fewer copies at a lower distance."""
    dip = [row(0.60, 1.1), row(0.54, 1.0), row(0.48, 0.9)]
    (family,) = against(row(0.54, 0.93, 0.001), dip=dip).families
    assert (family.outcome, family.by_dose) == ("no better", True)


def test_several_schedules_are_corrected_together():
    better = against(row(0.54, 0.95, 0.0225), flat=FLAT)  # p = 0.013
    assert better.outcome == "better"
    assert [v.outcome for v in confirm([better])] == ["better"]
    assert [v.outcome for v in confirm([better, better])] == ["undecided", "undecided"]
    clear, nothing = against(row(0.54, 0.9, 0.01), flat=FLAT), against(row(0.54, 1.0, 0.001), flat=FLAT)
    assert [v.outcome for v in confirm([clear, better, nothing])] == ["better", "undecided", "no better"]
    gate = replace(better, families=(), not_lowered=True)
    assert [v.outcome for v in confirm([better, gate])] == ["better", "not lowered"]


@given(p=st.lists(st.floats(0, 1), max_size=8))
def test_holm(p):
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p))
    order = np.argsort(p, kind="stable")
    rejected = 0
    while rejected < len(p) and p[order[rejected]] * (len(p) - rejected) < 0.025:  # step down by hand
        rejected += 1
    assert sum(a < 0.025 for a in adjusted) == rejected
