"""The words above the table: what ``results.json`` says of its verdicts, and what to say where it says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fm_lightning.comparison.results import VerdictResult
from fm_lightning.report.formats import count, share, span
from fm_lightning.report.results import Results, base_row, metric, of_kind

OUTCOMES = {  # a verdict's or a family's outcome, in a word or two
    "better": "better than the families tested",
    "no better": "no better than a family tested",
    "worse": "worse than a family tested",
    "undecided": "undecided",
    "out of reach": "out of reach",
    "not lowered": "does not lower memorization",
    "no claim": "no claim",
}


def verdicts(results: Results) -> Sequence[VerdictResult]:
    """One entry for each schedule judged (see ``build``); empty where none was."""
    return results.verdicts


def headline(results: Results) -> str:
    """The one sentence to remember: all claims, or why there are none."""
    if not of_kind(results, "schedule"):
        return "No shaped schedule was compared."
    if results.headline:
        return str(results.headline)
    copies = any("f_mem" in row.metrics for row in results.rows)
    if not copies and not results.quality:
        return (
            "Neither copies nor quality were measured, so nothing can be called better or worse "
            "(add MemorizationMonitor and FIDMonitor to trainer.callbacks)."
        )
    if not copies:
        return "Copies were not measured, so no schedule was judged (add MemorizationMonitor to trainer.callbacks)."
    return "No schedule was judged against trivial manipulations, so nothing can be called an improvement."


FAMILY_WORDS = {  # a family's outcome, as a phrase before the family's name
    "better": "better than",
    "no better": "no better than",
    "worse": "worse than",
    "undecided": "undecided against",
    "out of reach": "out of reach of",
}
TOGETHER = {  # what the schedules of one outcome have in common, for a reader who knows none of our words
    "better": "{} fewer training images and stay{} closer to real data than every trivial manipulation tested",
    "worse": "{} fewer training images, but trivial manipulations such as {} do it better",
    "no better": "{} fewer training images, but trivial manipulations such as {} do it as well",
    "undecided": "{} fewer training images; whether trivial manipulations do it as well is undecided",
    "out of reach": "{} fewer training images than any trivial manipulation tested can",
    "not lowered": "{} no fewer training images than plain sampling",
}


def answer(results: Results) -> str:
    """The results in one sentence for a reader who does not know the method."""
    found: dict[str, list[VerdictResult]] = {}
    for verdict in results.verdicts:
        found.setdefault(verdict.outcome, []).append(verdict)
    parts = [_together(outcome, some) for outcome, some in found.items()]
    return f"{'; '.join(parts)}." if parts else headline(results)


def _together(outcome: str, some: Sequence[VerdictResult]) -> str:
    names, one = _listed([verdict.schedule for verdict in some]), len(some) == 1
    if outcome == "no claim":
        return f"no claim is possible about {names}"
    subject = f"{names} cop{'ies' if one else 'y'}"
    rivals = dict.fromkeys(f.family for v in some for f in v.families if f.outcome == outcome)
    rival = next(iter(rivals), "added noise")
    words = TOGETHER.get(outcome, "{} fewer training images")
    return words.format(subject, rival) if outcome != "better" else words.format(subject, "s" if one else "")


def scope(results: Results) -> str:
    """What the headline rests on: plain sampling's copies, and the schedules that were not judged."""
    parts = [elsewhere] if (elsewhere := trained_elsewhere(results)) else []
    base = base_row(results)
    if base is not None and metric(base, "f_mem") is not None:
        lo_hi = span(metric(base, "f_mem_lo"), metric(base, "f_mem_hi"), share, 1)
        many = f"{count(base.samples)} samples"
        parts.append(f"Plain sampling: {share(metric(base, 'f_mem'))}% {lo_hi} of {many} are copies.")
    judged = {verdict.schedule for verdict in verdicts(results)}
    others = [row.name for row in of_kind(results, "schedule") if row.name not in judged]
    if judged and others:
        parts.append(f"Compared, but not judged: {_listed(others)}.")
    return " ".join(parts)


def trained_elsewhere(results: Results) -> str:
    """Where the weights come from, of a model that was not trained here; else empty."""
    weights = results.weights
    return f"The model was not trained here: its weights are those of {weights}." if weights else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
