"""What may be said about a schedule, from paired changes alone."""

import pytest

from fm_lightning.comparison.verdicts import outcome, verdict
from fm_lightning.report.words import EXPLAINED, headline, verdicts

DOWN, SAME, UP = (-5.0, -6.0, -4.0), (0.1, -0.5, 0.7), (5.0, 4.0, 6.0)


@pytest.mark.parametrize(
    ("f_mem", "fd", "expected"),
    [
        (DOWN, SAME, "beats"),
        (SAME, DOWN, "beats"),
        (DOWN, DOWN, "beats"),
        (DOWN, UP, "trades"),
        (UP, DOWN, "trades"),
        (SAME, SAME, "explained"),
        (UP, SAME, "explained"),
        (SAME, UP, "explained"),
        (UP, UP, "explained"),
    ],
)
def test_outcome(f_mem, fd, expected):
    assert outcome({"f_mem": f_mem, "fd": fd}) == expected


def row(name, of=None, vs_plain=None, vs_parent=None):
    return {
        "name": name,
        "label": name,
        "of": of,
        "vs_plain": vs_plain,
        "vs_parent": vs_parent,
        "metrics": {"fd": 50.0},
    }


BETTER = {"f_mem": (-0.05, -0.06, -0.04), "fd": (-1.0, -2.0, -0.5)}
NOTHING = {"f_mem": SAME, "fd": SAME}


def test_only_a_schedule_that_beats_everything_is_unexplained():
    mine = row("mine", vs_plain=BETTER)
    controls = [row("mine.noise", "mine", vs_parent=BETTER), row("mine.early_stop", "mine", vs_parent=BETTER)]
    found = verdict(mine, controls, row("base"), "fd")
    assert found["beats"] == ["mine.noise", "mine.early_stop"]
    assert not found["explained_by"]
    assert "no control explains it" in found["sentence"]
    assert "lowers F_mem by 5.0 points" in found["sentence"]
    assert "lowers the Fréchet distance by 2.0%" in found["sentence"]


def test_one_control_is_enough_to_explain():
    mine = row("mine", vs_plain=BETTER)
    controls = [row("mine.noise", "mine", vs_parent=NOTHING), row("mine.early_stop", "mine", vs_parent=BETTER)]
    found = verdict(mine, controls, row("base"), "fd")
    assert found["explained_by"] == ["mine.noise"]
    assert "no improvement can be claimed" in found["sentence"]


def test_a_trade_against_base_is_never_an_improvement():
    trade = {"f_mem": (-0.05, -0.06, -0.04), "fd": (3.0, 2.0, 4.0)}
    controls = [row("mine.noise", "mine", vs_parent=BETTER)]
    assert "not an improvement" in verdict(row("mine", vs_plain=trade), controls, row("base"), "fd")["sentence"]


def test_nothing_is_claimed_without_an_effect_or_without_controls():
    assert "nothing measurable" in verdict(row("mine", vs_plain=NOTHING), [], row("base"), "fd")["sentence"]
    assert (
        "without controls nothing follows" in verdict(row("mine", vs_plain=BETTER), [], row("base"), "fd")["sentence"]
    )


def test_a_schedule_that_only_makes_things_worse_is_called_worse():
    worse = {"f_mem": SAME, "fd": (3.0, 2.0, 4.0)}
    controls = [row("mine.noise", "mine", vs_parent=BETTER)]
    sentence = verdict(row("mine", vs_plain=worse), controls, row("base"), "fd")["sentence"]
    assert "worse than plain sampling" in sentence
    assert "beats" not in sentence


def told(*found):
    """Results with these verdicts, as the headline reads them."""
    rows = [{"name": v["schedule"], "kind": "schedule", "metrics": {"f_mem": 0.5}} for v in found]
    return {"rows": rows, "verdicts": list(found)}


def test_the_headline_and_the_words_beside_controls_agree_with_the_sentences():
    controls = [row("mine.noise", "mine", vs_parent=NOTHING)]
    unchanged = verdict(row("mine", vs_plain=NOTHING), controls, row("base"), "fd")
    worse = verdict(row("other", vs_plain={"f_mem": SAME, "fd": UP}), controls, row("base"), "fd")
    explained = verdict(row("third", vs_plain=BETTER), controls, row("base"), "fd")
    assert headline(told(unchanged)) == "No schedule improves on plain sampling: mine changes nothing measurable."
    assert headline(told(worse, unchanged)).endswith("other is worse, and mine changes nothing measurable.")
    assert headline(told(explained)) == "A matched control explains all that third does."
    assert headline(told(explained, worse)) == "A matched control explains all that third does; other is worse."
    # Where nothing was gained there is nothing that a control could take away.
    outcomes = {v.schedule: (v.outcome, v.on("mine.noise")) for v in verdicts(told(unchanged, worse, explained))}
    assert outcomes == {"mine": ("unchanged", None), "other": ("worse", None), "third": ("explained", EXPLAINED)}


def test_the_headline_where_nothing_was_measured():
    rows = [{"name": "mine", "kind": "schedule", "metrics": {"kpe_mean": 1.0}}]
    assert headline({"rows": rows, "verdicts": []}).startswith("Neither copies nor quality were measured")
    rows[0]["metrics"]["f_mem"] = 0.5
    assert "No schedule was run beside its matched controls" in headline({"rows": rows, "verdicts": []})


def test_another_solver_s_schedule_is_judged_against_that_solver():
    sentence = verdict(row("mid", vs_plain=BETTER), [], row("mid_plain"), "fd")["sentence"]
    assert "against mid_plain:" in sentence
    assert "against" not in verdict(row("mid", vs_plain=BETTER), [], row("base"), "fd")["sentence"]
