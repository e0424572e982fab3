"""The results of a comparison, out of its table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fm_lightning.comparison.judge import judge_all
from fm_lightning.comparison.results import Results
from fm_lightning.estimate import Estimate
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.verdicts.outcomes import FamilyVerdict
from fm_lightning.verdicts.verdict import Verdict
from fm_lightning.verdicts.wording import claim, family_sentence, headline

NO_CLAIM = "No claim: without the training data, copies cannot be counted."


def build(evaluation: Evaluation, rows: Sequence[dict[str, Any]]) -> Results:
    """The results out of an evaluation and what ``Collector.rows`` found in it."""
    about = evaluation.manifest.about
    quality = about.get("quality")
    samples = max((row["samples"] for row in rows), default=0)
    verdicts = judge_all(evaluation)
    content = {
        **about,
        "identity": evaluation.manifest.identity,
        "samples": samples,
        "quality": quality and {**quality, "samples": samples},
        "rows": list(rows),
        "judged": evaluation.manifest.judged,
        "verdicts": [_entry(evaluation, verdict) for verdict in verdicts],
        "headline": headline(verdicts) if verdicts else NO_CLAIM if about.get("left_out") else None,
    }
    return Results.from_dict(content)


def _entry(evaluation: Evaluation, verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data: numbers, and the sentences that follow from them."""
    base = verdict.base_quality
    judged = evaluation.manifest.judged[verdict.schedule]
    return {
        "schedule": verdict.schedule,
        "against": judged["base"],
        "outcome": verdict.outcome,
        "claim": claim(verdict),
        "paragraph": str(verdict),
        "n": verdict.n,
        "n_needed": verdict.n_needed,
        "memorized": verdict.memorized,
        "base_memorized": verdict.base_memorized,
        "lowered": [verdict.base_memorized - verdict.memorized, verdict.lowered.low, verdict.lowered.high],
        "measure": verdict.distance,
        "quality": _finite(verdict.quality),
        "base_quality": _finite(base),
        "quality_change": _interval(verdict.quality_change),
        "relative_change": _interval(verdict.relative_change),
        "other_change": _interval(verdict.other_change),
        "other_relative": _interval(verdict.other_relative),
        "held_out_memorized": verdict.held_out_memorized,
        "margin": {name: _finite(value) for name, value in asdict(verdict.margin).items()},
        "families": [
            _family(verdict, family, judged.get("cautions", {}).get(family.family, "")) for family in verdict.families
        ],
        "seen": verdict.seen,
        "robustness": [
            {
                "name": each.name,
                "outcome": each.outcome,
                "families": dict(each.families),
                "reverses": [family.family for some in each.reverses(verdict).values() for family in some],
            }
            for each in verdict.alternatives
        ],
    }


def _family(verdict: Verdict, family: FamilyVerdict, caution: str) -> dict[str, Any]:
    sentence = family_sentence(verdict, family)
    return {
        "family": family.family,
        "outcome": family.outcome,
        "sentence": f"{sentence}; {caution}" if caution else sentence,
        "residual": _interval(family.residual),
        "relative": _interval(family.relative),
        "slope": _finite(family.slope),
        "margin": _finite(family.margin),
        "fewer_copies": _finite(family.fewer_copies),
        "other_relative": _interval(family.other_relative),
        "n_needed": family.n_needed,
        "by_dose": family.by_dose,
        "p_better": family.p_better,
        "p_worse": family.p_worse,
        "p_no_better": family.p_no_better,
    }


def _interval(estimate: Estimate | None) -> list[float] | None:
    """[value, low, high], 95%."""
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
