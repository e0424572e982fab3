"""The words above the table: what ``results.json`` says of its verdicts, and what to say where it says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fm_lightning.comparison.results import VerdictResult
from fm_lightning.phrases import joined, share, span, thousands
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.results import Results, base_row, metric, of_kind


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


def answer(results: Results) -> str:
    """The results in one sentence for a reader who does not know the method."""
    found: dict[str, list[VerdictResult]] = {}
    for verdict in results.verdicts:
        found.setdefault(verdict.outcome, []).append(verdict)
    parts = [_together(outcome, some) for outcome, some in found.items()]
    text = f"{'; '.join(parts)}." if parts else headline(results)
    return f"N{text[1:]}" if next(iter(found), "") == "no claim" else text  # the others begin with a schedule's name


def _together(outcome: str, some: Sequence[VerdictResult]) -> str:
    names, one = joined(verdict.schedule for verdict in some), len(some) == 1
    subject = names if outcome == "no claim" else f"{names} cop{'ies' if one else 'y'}"
    rivals = [f.family for verdict in some for f in verdict.families if f.outcome == outcome]
    sentence = OUTCOMES[outcome].sentence
    # Not format: a name may hold braces.
    for mark, text in (("{s}", "s" if one else ""), ("{rival}", [*rivals, "added noise"][0]), ("{}", subject)):
        sentence = sentence.replace(mark, text, 1)
    return sentence


def scope(results: Results) -> str:
    """What the headline rests on: plain sampling's copies, and the schedules that were not judged."""
    parts = [elsewhere] if (elsewhere := trained_elsewhere(results)) else []
    base = base_row(results)
    if base is not None and metric(base, "f_mem") is not None:
        lo_hi = span(metric(base, "f_mem_lo"), metric(base, "f_mem_hi"), share, 1)
        many = f"{thousands(base.samples)} samples"
        parts.append(f"Plain sampling: {share(metric(base, 'f_mem'))}% {lo_hi} of {many} are copies.")
    judged = {verdict.schedule for verdict in results.verdicts}
    others = [row.name for row in of_kind(results, "schedule") if row.name not in judged]
    if judged and others:
        parts.append(f"Compared, but not judged: {joined(others)}.")
    return " ".join(parts)


def trained_elsewhere(results: Results) -> str:
    """Where the weights come from, of a model that was not trained here; else empty."""
    weights = results.weights
    return f"The model was not trained here: its weights are those of {weights}." if weights else ""
