"""The spread between training seeds as the smallest effect of a claim over several of them."""

from __future__ import annotations

import numpy as np
import pytest

from fm_lightning.comparison.results import FamilyResult, Interval, MarginResult, VerdictResult
from fm_lightning.study.replication import correct
from fm_lightning.study.spread import spread, with_floor


def entry(outcome="better", residual=(-0.05, -0.06, -0.04), base_quality=1.0, measure="kernel", margin=0.02):
    family = FamilyResult("noise", outcome, residual=residual and Interval(*residual), margin=margin + 0.01)
    return VerdictResult(
        "kts",
        "base",
        outcome,
        measure=measure,
        base_quality=base_quality,
        margin=MarginResult(0.01, margin),
        families=(family,),
    )


def test_it_is_the_standard_deviation_of_the_baseline_s_distance():
    some = [entry(base_quality=q) for q in (5.0, 6.0, 7.5)]
    assert spread(some) == pytest.approx(np.std([5, 6, 7.5], ddof=1) / np.mean([5, 6, 7.5]))
    assert spread(some[:2]) is None
    assert spread([*some, entry(measure="frechet")]) is None
    assert spread([*some[:2], entry(base_quality=-0.1)]) is None


@pytest.mark.parametrize(
    ("outcome", "residual", "floor", "raised"),
    [
        ("better", (-0.05, -0.06, -0.04), 0.01, "better"),  # below dQ
        ("better", (-0.05, -0.06, -0.04), 0.03, "better"),
        ("better", (-0.05, -0.06, -0.04), 0.045, "undecided"),
        ("better", (-0.05, -0.06, -0.04), 0.06, "no better"),
        ("worse", (0.05, 0.04, 0.06), 0.03, "worse"),
        ("worse", (0.05, 0.04, 0.06), 0.05, "no better"),
        ("undecided", (-0.03, -0.07, 0.01), 0.03, "undecided"),
        ("undecided", (-0.03, -0.07, 0.01), 0.07, "no better"),
        ("no better", (0.0, -0.01, 0.01), 0.07, "no better"),
        ("no better", None, 0.07, "no better"),
        ("out of reach", None, 0.07, "out of reach"),
    ],
)
def test_outcomes_with_a_larger_margin(outcome, residual, floor, raised):
    """The family's margin is dQ = .02 and .01 for its slope."""
    found = with_floor(entry(outcome, residual), floor)
    assert (found.outcome, found.families[0].outcome) == (raised, raised)
    assert found.margin.quality == max(floor, 0.02)


def test_a_distance_of_another_size_has_another_floor():
    assert with_floor(entry(base_quality=2.0), 0.03).margin.quality == pytest.approx(0.06)
    assert with_floor(entry(), None) == entry()


def test_the_sentence_says_what_is_ignored():
    verdict = {"outcomes": dict.fromkeys("abc", "no better"), "families": {"noise": dict.fromkeys("abc", "no better")}}
    verdict |= {"p_better": 1.0, "floor": 0.05, "spread": 0.05, "replicates": 3, "shared": ["noise"]}
    verdict |= {"untested": {}, "distances": {}, "reversed": {}}
    correct([verdict])
    ignored = "(effects below 5% of the baseline's distance, its spread between training seeds, are ignored)"
    assert verdict["sentence"] == f"no better than noise, in all 3 runs {ignored}"
