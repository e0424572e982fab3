"""The outcomes of a verdict in words, colours and marks: the same in every table, figure and page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How one outcome is shown.

    Attributes:
        words: of a schedule as a whole.
        sentence: what schedules ``{}`` with this outcome do, for a reader who does not know the method; ``{s}`` is the
            verb's ending for one schedule, ``{rival}`` a manipulation.
        meaning: its definition.
        family: before the name of a manipulation; empty for an outcome that only a whole verdict has.
        legend: of a manipulation's curve.
        colour: of both.
        marker: of the curve's doses, so that outcomes differ without colour too.
    """

    words: str
    sentence: str
    meaning: str
    family: str = ""
    legend: str = ""
    colour: str = "#6b7480"
    marker: str = "D"


FEWER = "{} fewer training images"
OUTCOMES = {
    "better": Outcome(
        "better than the families tested",
        FEWER + " and stay{s} closer to real data than every trivial manipulation tested",
        "At equal F_mem the schedule's distance lies below the curves of all families tested that reach it, by more than the "
        "margin and significantly.",
        "better than",
        "the schedule is better",
        "#0072b2",
        "o",
    ),
    "no better": Outcome(
        "no better than a family tested",
        FEWER + ", but trivial manipulations such as {rival} do it as well",
        "An advantage of the schedule over the family beyond the margin is excluded.",
        "no better than",
        "the schedule is no better",
        "#e69f00",
        "s",
    ),
    "worse": Outcome(
        "worse than a family tested",
        FEWER + ", but trivial manipulations such as {rival} do it better",
        "At equal F_mem the schedule's distance lies above the family's curve, by more than the margin and significantly.",
        "worse than",
        "the schedule is worse",
        "#d55e00",
        "X",
    ),
    "undecided": Outcome(
        "undecided",
        FEWER + "; whether trivial manipulations do it as well is undecided",
        "Neither is shown yet; with more seeds one of them would be.",
        "undecided against",
        "undecided",
    ),
    "out of reach": Outcome(
        "out of reach",
        FEWER + " than any trivial manipulation tested can",
        "No dose of the families tested memorizes as little as the schedule does.",
        "out of reach of",
        "does not reach it",
        "#959da8",
        "v",
    ),
    "not lowered": Outcome(
        "does not lower memorization",
        "{} no fewer training images than plain sampling",
        "A fall of F_mem by the margin is excluded, so there is nothing to explain.",
    ),
    "no claim": Outcome(
        "no claim",
        "no claim is possible about {}",
        "Too few copies or seeds, no distance to real data, or two distances that contradict each other.",
    ),
}
