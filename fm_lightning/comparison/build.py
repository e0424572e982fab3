"""The results of a comparison, out of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from fm_lightning.comparison.judge import judge_all
from fm_lightning.comparison.results import FamilyResult, Results, RowResult, VerdictResult
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.verdicts.outcomes import FamilyVerdict
from fm_lightning.verdicts.verdict import Verdict
from fm_lightning.verdicts.wording import claim, family_sentence, headline

NO_CLAIM = "No claim: without the training data, copies cannot be counted."


def build(evaluation: Evaluation, rows: Sequence[RowResult]) -> Results:
    """The results out of an evaluation and what ``Collector.rows`` found in it."""
    about, judged = evaluation.manifest.about, evaluation.manifest.judged
    quality = about.get("quality")
    samples = max((row.samples for row in rows), default=0)
    verdicts = judge_all(evaluation)
    content = {
        **about,
        "identity": evaluation.manifest.identity,
        "samples": samples,
        "quality": quality and {**quality, "samples": samples},
        "rows": (),
        "judged": judged,
        "verdicts": [_entry(verdict, judged[verdict.schedule]) for verdict in verdicts],
        "headline": headline(verdicts) if verdicts else NO_CLAIM if about.get("left_out") else None,
    }
    return replace(Results.from_dict(content), rows=tuple(rows))


def _entry(verdict: Verdict, judged: dict[str, Any]) -> dict[str, Any]:
    """A verdict as the fields of its result: numbers, and the sentences that follow from them."""
    cautions = judged.get("cautions", {})
    return _shared(VerdictResult, verdict) | {
        "against": judged["base"],
        "claim": claim(verdict),
        "paragraph": str(verdict),
        "lowered": [verdict.base_memorized - verdict.memorized, verdict.lowered.low, verdict.lowered.high],
        "measure": verdict.distance,
        "margin": asdict(verdict.margin),
        "families": [_family(verdict, family, cautions.get(family.family, "")) for family in verdict.families],
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
    return _shared(FamilyResult, family) | {"sentence": f"{sentence}; {caution}" if caution else sentence}


def _shared(kind: type, value: Any) -> dict[str, Any]:
    """The fields of the class ``kind`` that ``value`` has under the same names."""
    return {field.name: getattr(value, field.name) for field in fields(kind) if hasattr(value, field.name)}
