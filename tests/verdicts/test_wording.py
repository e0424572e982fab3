"""Words: over all combinations of outcomes, no sentence, claim, headline or paragraph claims more than the verdict."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace

import pytest

from fm_lightning.estimate import Estimate
from fm_lightning.verdicts.margins import Margin
from fm_lightning.verdicts.outcomes import ORDER, SUPPORT, Alternative, FamilyVerdict
from fm_lightning.verdicts.verdict import Verdict
from fm_lightning.verdicts.wording import claim, family_sentence, headline

BETTER = FamilyVerdict(
    "x", "better", Estimate(-0.4, 0.05), Estimate(-0.4, 0.06), slope=-4.0, margin=0.06, fewer_copies=-0.1, p_better=1e-6
)
ROUGH = Estimate(-0.06, 0.05)
STATES = {
    "better": BETTER,
    "better, no price": replace(BETTER, slope=2.0, fewer_copies=None),
    "better, no share": replace(BETTER, slope=2.0, fewer_copies=None, relative=None),
    "no better": replace(BETTER, outcome="no better", residual=Estimate(0.01, 0.02), relative=Estimate(0.01, 0.02)),
    "no better by a dose": FamilyVerdict("x", "no better", by_dose=True, p_no_better=1e-4),
    "worse": replace(BETTER, outcome="worse", residual=Estimate(0.25, 0.03), relative=Estimate(0.25, 0.03)),
    "undecided": replace(BETTER, outcome="undecided", residual=ROUGH, relative=ROUGH, n_needed=4567),
    "undecided for long": replace(BETTER, outcome="undecided", residual=ROUGH, relative=ROUGH),
    "missed": FamilyVerdict("x", "undecided", missed=True),
    "disagree": replace(BETTER, outcome="undecided", disagrees=True, other=Estimate(0.4, 0.05)),
    "out of reach": FamilyVerdict("x", "out of reach"),
}
NAMES = ("late brake", "noise", "early stop")
SAID = {"late brake": "a late brake", "noise": "noise", "early stop": "early stopping"}
PLAIN = Verdict(
    "kts",
    2000,
    0.598,
    0.65,
    Estimate(0.052, 0.005),
    Margin(0.01, 0.02),
    "frechet",
    1.05,
    1.0,
    Estimate(0.05, 0.01),
    Estimate(0.05, 0.012),
)
FORBIDDEN = re.compile(r"the same|equal quality|no difference|not significant|\bnan\b|None|inf\b|explained", re.I)


def combinations():
    for size in (1, 2, 3):
        for states in itertools.product(STATES, repeat=size):
            families = tuple(replace(STATES[state], family=name) for state, name in zip(states, NAMES))
            for confirmed in (True, False):
                yield replace(PLAIN, families=families, confirmed=confirmed)


def closed():
    for change in (-0.05, -0.01, 0.0, 0.01, 0.05):
        for error in (0.001, 0.04):
            estimate = Estimate(change, error)
            yield replace(PLAIN, not_lowered=True, quality_change=estimate, relative_change=estimate)
    yield replace(PLAIN, not_lowered=True, distance=None, quality_change=None, margin=Margin(0.01, math.nan))
    yield replace(PLAIN, not_lowered=True, base_quality=-0.1, relative_change=None)


REASONS = (
    "nothing to lower",
    "floor open",
    "few copies",
    "few left",
    "few others",
    "no distance",
    "no margin",
    "lowering open",
    "no family",
)


def refused():
    for reason in REASONS:
        for needed in (None, 4567):
            yield replace(PLAIN, refused=reason, n_needed=needed, held_out_memorized=0.7)
    yield replace(PLAIN, refused="few for Fréchet", n_needed=20480)
    yield replace(
        PLAIN,
        refused="no distance",
        distance=None,
        quality_change=None,
        relative_change=None,
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
        kinds = {kind: begin_with(f"{kind} than", sentences) for kind in ("better", "no better", "worse")}
        undecided = begin_with("undecided against", sentences)
        unreached = {name for name, sentence in sentences.items() if "cannot lower copies as far" in sentence}
        assert set().union(*kinds.values(), undecided, unreached) == set(sentences)
        reached = set(sentences) - unreached
        wins = "is better than every family tested" in said
        assert wins == (bool(reached) and kinds["better"] == reached and verdict.confirmed), said
        assert said.startswith("is worse than") == bool(kinds["worse"])
        assert ("no better than" in said) == bool(kinds["no better"])
        for name in kinds["no better"] | kinds["worse"]:
            assert SAID[name] in said
        for name in sentences if wins else ():
            assert SAID[name] in said, (
                "better than the families tested, which are named; and those that do not reach it"
            )
        if said.startswith("is undecided against"):
            assert undecided <= {name for name in NAMES if SAID[name] in said}
        if "but not after correction" in said:
            assert kinds["better"] == reached
            assert not verdict.confirmed
        if said.startswith("supports no claim"):
            assert any("worse by" in sentence for sentence in sentences.values())
        if said.startswith("memorizes less than any"):
            assert not reached


def test_the_headline_holds_every_claim_and_nothing_else():
    for first, second in itertools.product(EVERYTHING[::37], EVERYTHING[::41]):
        pair = [replace(first, schedule="one"), replace(second, schedule="two")]
        said = headline(pair)
        claims = {f"{v.schedule} {claim(v)}" for v in pair}
        parts = said.removesuffix(".").split("; ")
        assert set(parts) == claims
        first_outcome = min((v.outcome for v in pair), key=ORDER.index)
        assert parts[0] in {f"{v.schedule} {claim(v)}" for v in pair if v.outcome == first_outcome}
    assert headline([]) == "No schedule was judged."


def test_the_order_of_a_headline():
    outcomes = ("better", "undecided", "no better", "worse")
    found = [replace(PLAIN, schedule=o, families=(replace(STATES[o], family="noise"),)) for o in outcomes]
    places = [f"; {headline(found)}".index(f"; {o} is ") for o in ("worse", "no better", "undecided", "better")]
    assert places == sorted(places)


@pytest.mark.parametrize("start", range(7))
def test_a_paragraph_of_few_families_has_every_number_and_name(start):
    for verdict in EVERYTHING[start::7]:
        said = str(verdict)
        assert "At 2,000 paired seeds, kts lowers copies from 65.0 to 59.8% (−5.2 points [−6.2, −4.2])" in said
        if verdict.families:
            assert "Effects below 1 point of copies or 2% of the baseline's distance are ignored" in said
        for family in verdict.families:
            assert SAID[family.family] in said.lower()
            if family.relative is not None:
                assert f"{SAID[family.family]} ({'−' if family.relative.value < 0 else ''}" in said


def many(seed):
    """A verdict over up to 14 families of all outcomes, some with long names, at a floored margin."""
    rng = random.Random(seed)
    count = rng.randint(1, 14)
    words = ("noise", "early", "late", "stop", "brake", "of a longer average", "with less guidance", "at .9")
    names = [f"{' '.join(rng.choices(words, k=rng.randint(1, 3)))} {i}" for i in range(count)]
    families = tuple(replace(rng.choice(list(STATES.values())), family=name) for name in names)
    alternatives = tuple(
        Alternative(f"at a threshold of 1/{k}", "worse", {f.family: rng.choice(list(SUPPORT)) for f in families})
        for k in range(rng.randint(0, 5))
    )
    change = Estimate.of(0.05, [0.3, -0.3] * 50, [0.1, -0.1])
    return replace(
        PLAIN,
        families=families,
        margin=Margin(0.01, 0.04, 0.04, 998),
        confirmed=rng.random() < 0.8,
        alternatives=alternatives,
        seen=rng.choice([None, 0.0, 0.3, 1.0]),
        relative_change=change,
    )


def test_a_paragraph_has_at_most_120_words():
    found = [*EVERYTHING, *(many(seed) for seed in range(300))]
    lengths = [len(str(verdict).split()) for verdict in found]
    assert max(lengths) <= 120
    assert max(lengths) > 100, "nothing is left out before it has to be"
    for verdict in found:
        assert str(verdict).endswith(".")
        outcomes = {family.outcome for family in verdict.families}
        for outcome, words in (("worse", "worse than"), ("no better", "no better than"), ("better", "better than")):
            assert outcome not in outcomes or words in str(verdict)


def test_the_paragraph():
    families = (
        replace(STATES["worse"], family="noise", relative=Estimate(0.25, 0.03)),
        replace(STATES["no better"], family="late brake", relative=Estimate(-0.015, 0.0135)),
        replace(STATES["better"], family="blend"),
        replace(STATES["undecided"], family="early stop"),
        replace(STATES["out of reach"], family="fewer steps"),
    )
    found = replace(PLAIN, families=families, margin=Margin(0.01, 0.04, 0.04, 998), seen=0.0)
    assert str(found) == (
        "At 2,000 paired seeds, kts lowers copies from 65.0 to 59.8% (−5.2 points [−6.2, −4.2]) and raises the Fréchet "
        "distance to unseen real images by 5.0% [2.6, 7.4]. At equal copies (distance, % of the baseline's) it is worse than "
        "noise (25% [19, 31]); no better than a late brake (−1.5% [−4.1, 1.1]); better than blending (−40% [−52, −28]); "
        "undecided against early stopping (−6% [−16, 4]). Fewer steps cannot lower copies as far. Effects below 1 point of "
        "copies or 4% of the baseline's distance are ignored (998 real images resolve 4%); intervals are 95%. We attribute no "
        "benefit to its shape."
    )
    assert claim(found) == "is worse than noise, no better than a late brake"


def test_what_another_definition_reverses_is_in_the_same_sentence():
    families = (replace(STATES["better"], family="noise"), replace(STATES["better"], family="late brake"))
    quarter = Alternative("at a threshold of 1/4", "no better", {"noise": "no better", "late brake": "better"})
    half = Alternative("at a threshold of 1/2", "undecided", {"noise": "undecided", "late brake": "undecided"})
    kernel = Alternative("by the kernel distance", "not lowered", {})
    found = replace(PLAIN, families=families, alternatives=(quarter, half, kernel))
    words = (
        "at a threshold of 1/4 no better than noise, at a threshold of 1/2 undecided against noise and a late brake, by the "
        "kernel distance copies do not fall"
    )
    assert claim(found).endswith(f"({words})")
    assert "At a threshold of 1/4 no better than noise; at a threshold of 1/2 undecided against noise" in str(found)
    agreeing = Alternative("at a threshold of 1/4", "better", {"noise": "better", "late brake": "out of reach"})
    alike = replace(found, alternatives=(agreeing,))
    assert claim(alike) == claim(replace(found, alternatives=()))
    assert str(alike) == str(replace(found, alternatives=()))


def test_a_distance_to_training_images_says_what_it_rewards():
    families = (replace(STATES["better"], family="noise"),)
    for outcome in (replace(PLAIN, families=families, seen=1.0), replace(PLAIN, not_lowered=True, seen=1.0)):
        assert ", by a distance to training images, which rewards copies" in outcome.sentence
        assert "distance to training images, which rewards copies, by 5.0%" in str(outcome)
    some = replace(PLAIN, families=families, seen=0.3)
    assert "by a distance to real images, 30% of them training images, which rewards copies" in some.sentence
    for seen in (None, 0.0):
        assert "rewards" not in replace(PLAIN, families=families, seen=seen).sentence


def test_no_words_that_overclaim_and_no_holes():
    for verdict in EVERYTHING:
        for said in (claim(verdict), headline([verdict]), str(verdict), verdict.sentence):
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
        "better, no price": "better than noise: Fréchet distance lower by 40% [28, 52] of the baseline's at equal copies",
        "better, no share": "better than noise: Fréchet distance lower by 0.40 [0.30, 0.50] at equal copies",
        "no better": "no better than noise: an advantage beyond 1 point plus 2% is excluded",
        "no better by a dose": (
            "no better than noise: one of its doses is as good in copies and in distance, within 1 point and 2%"
        ),
        "worse": "worse than noise: Fréchet distance higher by 25% [19, 31] of the baseline's at equal copies",
        "undecided": "undecided against noise (about 4,600 seeds would decide)",
        "undecided for long": "undecided against noise (many more seeds would be needed)",
        "missed": "undecided against noise: its doses, chosen on calibration seeds, missed this memorized share",
        "disagree": "undecided against noise: better by Fréchet distance, worse by kernel distance",
        "out of reach": "noise cannot lower copies as far in its dose range",
    }


def test_the_change_is_the_difference_of_the_shares_beside_it():
    """35 of 256 seeds, whose interval's centre is 35 of 258."""
    found = replace(PLAIN, memorized=87 / 256, base_memorized=122 / 256, lowered=Estimate(35 / 258, 0.0217))
    assert "from 47.7 to 34.0% (−13.7 points [−17.8, −9.3])" in str(found)


def test_the_nearest_family_is_the_one_with_fewest_points_between():
    steep = replace(BETTER, family="steep", fewer_copies=-0.04)
    gentle = replace(BETTER, family="gentle", fewer_copies=-0.2)
    rising = replace(BETTER, family="rising", slope=1.0, fewer_copies=None, relative=Estimate(-0.1, 0.05))
    for families in itertools.permutations((steep, gentle, rising)):
        assert "4.0 points fewer copies than the nearest, steep," in claim(replace(PLAIN, families=families))
    said = claim(replace(PLAIN, families=(replace(rising, family="other", residual=Estimate(-0.5, 0.05)), rising)))
    assert "Fréchet distance lower by 10% [0, 20] of the baseline's than the nearest, rising, at equal copies" in said


def test_what_a_schedule_that_does_not_lower_memorization_does_to_quality():
    said = [claim(v) for v in closed()]
    words = [
        "is lower than plain", "whether its", "is excluded", "whether its", "is excluded", "whether its", "is excluded",
        "whether its", "is higher than plain", "whether its", "no distance", "is higher than plain",
    ]  # fmt: skip
    assert len(said) == len(words)
    for sentence, word in zip(said, words):
        assert sentence.startswith("does not lower copies by 1 point")
        assert word in sentence
