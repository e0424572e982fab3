"""Words: over all combinations of outcomes, no sentence, claim or headline says more than the verdict."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest

from fm_lightning.verdicts.margins import Margin
from fm_lightning.verdicts.outcomes import FamilyVerdict, Verdict
from fm_lightning.verdicts.residual import Estimate
from fm_lightning.verdicts.wording import claim, family_sentence, headline, paragraph

BETTER = FamilyVerdict("x", "better", Estimate(-0.4, 0.05), slope=-4.0, margin=0.06, p_better=1e-6)
STATES = {
    "better": BETTER,
    "better, no price": replace(BETTER, slope=2.0),
    "explained": replace(BETTER, outcome="explained", residual=Estimate(0.01, 0.02), p_explained=1e-4),
    "explained by a dose": FamilyVerdict("x", "explained", by_dose=True, p_explained=1e-4),
    "undecided": replace(BETTER, outcome="undecided", residual=Estimate(-0.02, 0.05), n_needed=4567),
    "undecided for ever": replace(BETTER, outcome="undecided", residual=Estimate(-0.06, 0.05), n_needed=21469924),
    "undecided, no number": replace(BETTER, outcome="undecided", residual=Estimate(-0.06, 0.05)),
    "missed": FamilyVerdict("x", "undecided", missed=True),
    "disagree": replace(BETTER, outcome="undecided", disagrees=True, other=Estimate(0.4, 0.05)),
    "out of reach": FamilyVerdict("x", "out of reach"),
}
NAMES = ("late brake", "noise", "early stop")
PLAIN = Verdict(
    "kts", 2000, 0.598, 0.65, Estimate(0.052, 0.005), Margin(0.01, 0.02), "frechet", 1.05, 1.0, Estimate(0.05, 0.01)
)
FORBIDDEN = re.compile(r"the same|equal quality|no difference|not significant|\bnan\b|None|inf\b", re.I)


def combinations():
    for size in (1, 2, 3):
        for states in itertools.product(STATES, repeat=size):
            families = tuple(replace(STATES[state], family=name) for state, name in zip(states, NAMES))
            for confirmed in (True, False):
                yield replace(PLAIN, families=families, confirmed=confirmed)


def closed():
    for change in (-0.05, -0.01, 0.0, 0.01, 0.05):
        for error in (0.001, 0.04):
            yield replace(PLAIN, not_lowered=True, quality_change=Estimate(change, error))
    yield replace(PLAIN, not_lowered=True, measure=None, quality_change=None, margin=Margin(0.01, math.nan))


def refused():
    for reason in (
        "few copies",
        "few others",
        "no distance",
        "few for Fréchet",
        "no margin",
        "lowering open",
        "no family",
    ):
        for needed in (None, 4567):
            if reason != "few for Fréchet" or needed:
                yield replace(PLAIN, refused=reason, n_needed=needed)
    yield replace(
        PLAIN,
        refused="no distance",
        measure=None,
        quality_change=None,
        margin=Margin(0.01, math.nan),
        base_quality=math.nan,
    )


EVERYTHING = [*combinations(), *closed(), *refused()]


def begin_with(words, sentences):
    return {name for name, sentence in sentences.items() if sentence.startswith(words)}


def test_a_claim_says_what_its_families_sentences_say():
    assert len(EVERYTHING) > 1000
    for verdict in combinations():
        sentences = {f.family: family_sentence(verdict, f) for f in verdict.families}
        said = claim(verdict)
        better, explained = (begin_with(words, sentences) for words in ("better than", "explained by"))
        undecided = begin_with("undecided against", sentences)
        unreached = {name for name, sentence in sentences.items() if "does not reach" in sentence}
        assert better | explained | undecided | unreached == set(sentences)
        reached = set(sentences) - unreached
        wins = "is better than every family tested" in said
        assert wins == (bool(reached) and better == reached and verdict.confirmed), said
        assert said.startswith("is explained by") == bool(explained)
        for name in explained:
            assert name in said
        for name in sentences if wins else ():
            assert name in said, "better than the families tested, which are named; and those that do not reach it"
        if said.startswith("is undecided against"):
            assert undecided <= {name for name in NAMES if name in said}
            assert not explained
        if "but not after correction" in said:
            assert better == reached
            assert not verdict.confirmed
        if said.startswith("allows no claim"):
            assert any("worse by" in sentence for sentence in sentences.values())
            assert not explained
        if said.startswith("reaches a memorization"):
            assert not reached


def test_the_headline_holds_every_claim_and_nothing_else():
    for first, second in itertools.product(EVERYTHING[::37], EVERYTHING[::41]):
        pair = [replace(first, schedule="one"), replace(second, schedule="two")]
        said = headline(pair)
        claims = {f"{v.schedule} {claim(v)}" for v in pair}
        parts = said.removesuffix(".").split("; ")
        assert set(parts) == claims
        if "better" in {v.outcome for v in pair}:
            assert "is better than every family tested" in parts[0], "the strongest comes first"
    assert headline([]) == "No schedule was judged."


@pytest.mark.parametrize("start", range(7))
def test_a_paragraph_has_every_number_and_name(start):
    for verdict in EVERYTHING[start::7]:
        check_paragraph(verdict)


def check_paragraph(verdict):
    said = paragraph(verdict, {"frechet": "FID", "kernel": "KID"})
    assert "2 000 paired seeds" in said
    assert "59.8 % where plain sampling has 65.0 %" in said
    assert "-5.2 [-6.2, -4.2] points" in said
    assert claim(verdict, {"frechet": "FID", "kernel": "KID"}) in said
    for family in verdict.families:
        assert family.family in said
        sentence = family_sentence(verdict, family, {"frechet": "FID", "kernel": "KID"})
        assert sentence in said.replace(sentence[:1].upper() + sentence[1:], sentence)
        if family.residual is not None:
            assert f"{100 * family.residual.value:+.1f} [{100 * family.residual.low:+.1f}" in said
            assert f"margin {100 * family.margin:.2g}" in said
    if verdict.families:
        assert "1 point plus 2 %" in said
        assert f"{len(verdict.families)} trivial manipulation" in said


def test_no_words_that_overclaim_and_no_holes():
    for verdict in EVERYTHING:
        for said in (claim(verdict), headline([verdict]), paragraph(verdict)):
            assert not FORBIDDEN.search(said), said
            assert "  " not in said, said
            assert ".." not in said, said
        for family in verdict.families:
            assert not FORBIDDEN.search(family_sentence(verdict, family))


def test_the_words():
    verdict = replace(PLAIN, families=tuple(STATES.values()))
    said = {state: family_sentence(verdict, replace(f, family="noise")) for state, f in STATES.items()}
    assert said == {
        "better": "better than noise: 10.0 points fewer copies at equal distance",
        "better, no price": "better than noise: Fréchet distance lower by 40.0 % at equal memorization",
        "explained": "explained by noise: an advantage beyond 1 point plus 2 % is excluded",
        "explained by a dose": (
            "explained by noise: one of its doses is as good to within 1 point and 2 %, or better, in both"
        ),
        "undecided": "undecided against noise; about 4 600 seeds would decide",
        "undecided for ever": "undecided against noise; more than 1 000 000 seeds would be needed",
        "undecided, no number": "undecided against noise",
        "missed": "undecided against noise: its doses, chosen on calibration seeds, missed this memorization",
        "disagree": "undecided against noise: better by Fréchet distance, worse by kernel distance",
        "out of reach": "noise does not reach this memorization in its dose range",
    }


def test_the_change_is_the_difference_of_the_shares_beside_it():
    """35 of 256 seeds, whose interval's centre is 35 of 258."""
    found = replace(PLAIN, memorized=87 / 256, base_memorized=122 / 256, lowered=Estimate(35 / 258, 0.0217))
    assert "34.0 % where plain sampling has 47.7 % (change -13.7 [-17.8, -9.3] points)" in paragraph(found)


def test_the_nearest_family_is_the_one_with_fewest_points_between():
    steep = replace(BETTER, family="steep", residual=Estimate(-0.4, 0.05), slope=-10.0)  # 4 points
    gentle = replace(BETTER, family="gentle", residual=Estimate(-0.2, 0.05), slope=-1.0)  # 20 points
    rising = replace(BETTER, family="rising", residual=Estimate(-0.1, 0.05), slope=1.0)
    for families in itertools.permutations((steep, gentle, rising)):
        assert "4.0 points fewer copies than the nearest, steep," in claim(replace(PLAIN, families=families))
    said = claim(replace(PLAIN, families=(rising, replace(rising, family="other", residual=Estimate(-0.3, 0.05)))))
    assert "Fréchet distance lower by 10.0 % than the nearest, rising, at equal memorization" in said


def test_what_a_schedule_that_does_not_lower_memorization_does_to_quality():
    said = [claim(v) for v in closed()]
    words = [
        "is lower than plain", "whether its", "is excluded", "whether its", "is excluded", "whether its", "is excluded",
        "whether its", "is larger than plain", "whether its", "no distance",
    ]  # fmt: skip
    assert len(said) == len(words)
    for sentence, word in zip(said, words):
        assert sentence.startswith("does not lower memorization by 1 point")
        assert word in sentence
