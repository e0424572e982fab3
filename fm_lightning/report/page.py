"""The page: one self-contained ``report.html`` next to the results that it is made from; and the other files of a comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fm_lightning.comparison.results import QualityFacts, VerdictResult
from fm_lightning.files import write_whole
from fm_lightning.phrases import MISSING, finite, number, share, signed, thousands, true_minus, with_span
from fm_lightning.report.columns import Column, columns, family_columns
from fm_lightning.report.figures import FIGURES
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.results import Arrays, Results, Row, base_row, groups, of_kind, quality_label, subtitle, title
from fm_lightning.report.style import MUTED, colours, embedded, png, svg, template
from fm_lightning.report.table import print_table, write_csv
from fm_lightning.report.words import answer, headline, scope

GLOSSARY = (
    ("F_mem", "Share of samples whose nearest training image is closer than the second nearest by the threshold."),
    ("paired", "Both samplings start from the same noise with the same label, seed by seed."),
    (
        "Fréchet, kernel",
        "Distances between the features of samples and of real data. The table has the plug-in Fréchet distance, whose bias "
        "grows as samples become fewer; verdicts use the extrapolated Fréchet or the unbiased kernel distance.",
    ),
    (
        "when the two disagree",
        "The Fréchet distance compares means and covariances, and noise counts in every feature. The kernel distance compares "
        "moments up to the third, mainly of the features with large variance, and hardly sees noise in the others.",
    ),
    (
        "intervals in %",
        "Verdicts are about just these real images. Numbers in % of the baseline's distance are about all such images, and "
        "their intervals include the error of these, where it is known.",
    ),
    ("KPE", "Kinetic path energy: half the integral of the squared velocity, summed over dimensions."),
    ("early, late", "The part of KPE spent before the split time, and after it."),
    ("excess", "KPE minus the energy of the straight line between the same two ends."),
    ("NFE", "Network evaluations per sample."),
    (
        "family",
        "A trivial manipulation of plain sampling, such as added noise, at any dose. Its doses are chosen on seeds of their "
        "own so that they memorize about as much as the schedule; the schedule is compared with the curve through them.",
    ),
    ("margin", "The smallest effect that matters, in points of F_mem and in percent of base's distance together."),
    *((outcome.words, outcome.meaning) for outcome in OUTCOMES.values()),
    ("true clock", "The schedule's step sizes with the true time passed to the network: its discretisation alone."),
    ("floors", "No model at all: held-out real data, and the training data themselves."),
)
MEASURES = {"frechet": "Fréchet distance", "kernel": "kernel distance"}


def save(run_dir: str | Path, results: Results, arrays: Arrays) -> None:
    """Writes results, table and page; prints the table and where the page lies."""
    run_dir = Path(run_dir)
    results.write(run_dir)
    write_csv(results, run_dir / "results.csv")
    print_table(results)
    print("\nDrawing the report ...", flush=True)  # figures take a few seconds
    print(f"Report: {write_report(run_dir, results, arrays)}")


def write_report(run_dir: str | os.PathLike[str], results: Results, arrays: Arrays) -> Path:
    """Writes ``RUN_DIR/report.html`` and returns its path."""
    return write_whole(Path(run_dir) / "report.html", render(results, arrays))


def render(results: Results, arrays: Arrays) -> str:
    """The page as HTML with everything inside: no script, no address of anything outside."""
    chosen = columns(results)
    return template("page.html").render(
        name=results.name or "comparison",
        created=_date(results.created),
        headline=answer(results),
        detail=headline(results) if results.verdicts else "",
        scope=scope(results),
        answers=list(_answers(results)),
        distance_label=_distance(results),
        verdicts=[_verdict(results, verdict) for verdict in results.verdicts],
        outcomes=OUTCOMES,
        base=base.name if (base := base_row(results)) else "base",
        columns=chosen,
        groups=_cells(results, groups(results), chosen),
        family_columns=family_columns(results),
        families=_families(results),
        glossary=GLOSSARY,
        figures=list(_figures(results, arrays)),
        facts=list(_facts(results)),
        config=json.dumps(results.config, indent=2, ensure_ascii=False, default=str) if results.config else "",
    )


def _distance(results: Results) -> str:
    """The distances that judge, in words."""
    measures = dict.fromkeys(verdict.measure for verdict in results.verdicts if verdict.measure)
    return " or ".join(MEASURES[measure] for measure in measures)


def _date(created: object) -> str:
    try:
        return datetime.fromisoformat(str(created)).strftime("%d %B %Y, %H:%M").lstrip("0")
    except ValueError:
        return ""


def _answers(results: Results) -> Iterator[dict[str, Any]]:
    """A line for each schedule judged: copies, distance, outcome, and the families behind it."""
    tint = colours(results)
    for verdict in results.verdicts:
        fall, change = verdict.lowered, verdict.relative_change
        fewer = fall and with_span(-100 * fall.value, -100 * fall.high, -100 * fall.low, signed, 1, " points")
        farther = change and with_span(100 * change.value, 100 * change.low, 100 * change.high, signed, 0, "%")
        families: dict[str, list[str]] = {}
        for family in verdict.families:
            families.setdefault(family.outcome, []).append(family.family)
        yield {
            "schedule": verdict.schedule,
            "against": verdict.against,
            "colour": tint.get(verdict.schedule, MUTED),
            "outcome": verdict.outcome,
            "copies": f"{share(verdict.base_memorized)} → {share(verdict.memorized)}%",
            "copies_change": true_minus(fewer or ""),
            "distance": f"{_significant(verdict.base_quality)} → {_significant(verdict.quality)}",
            "distance_change": true_minus(farther or ""),
            "families": [(OUTCOMES[outcome].family, names) for outcome, names in families.items()],
            "claim": verdict.claim,
        }


def _significant(value: float | None) -> str:
    """Three digits at any size: 6.00, 0.0122."""
    return MISSING if value is None else f"{value:#.3g}".rstrip(".")


def _verdict(results: Results, verdict: VerdictResult) -> dict[str, Any]:
    """A verdict with the number of seeds that it rests on."""
    tint = colours(results).get(verdict.schedule, MUTED)
    return {
        **vars(verdict),
        "numbers": f"{thousands(verdict.n)} paired seeds",
        "colour": tint,
        "others": [f.family for f in verdict.families] if verdict.robustness else [],
        "contrary": list(_contrary(verdict)),
    }


def _contrary(verdict: VerdictResult) -> Iterator[str]:
    """What each distance shows of the families where the kernel distance alone reverses the outcome."""
    reversed_ = {name for each in verdict.robustness if each.name == "by the kernel distance" for name in each.reverses}
    for family in verdict.families:
        if family.family in reversed_ and family.relative and family.other_relative:
            frechet, kernel = (
                true_minus(with_span(100 * r.value, 100 * r.low, 100 * r.high, signed, 0))
                for r in (family.relative, family.other_relative)
            )
            yield f"Against {family.family}: Fréchet distance {frechet}, kernel distance {kernel}, in % of the baseline's."


def _cells(results: Results, rows: Iterable[Iterable[Row]], chosen: Iterable[Column]) -> list[list[dict[str, Any]]]:
    """A table, cell by cell, in groups."""
    chosen, tint = list(chosen), colours(results)
    return [
        [
            {
                "kind": row.kind,
                "name": row.name,
                "title": title(row),
                "subtitle": subtitle(row),
                "description": row.description or "",
                "colour": tint[row.name] if row.kind in ("base", "schedule") else "",
                "cells": [(true_minus(column.cell(row)), true_minus(column.aside(row))) for column in chosen],
            }
            for row in group
        ]
        for group in rows
    ]


def _families(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """The families' rows under the schedule that they are compared with, itself and its base first."""
    found = []
    for verdict in results.verdicts:
        name = verdict.schedule
        rows = [row for row in results.rows if row.name in (name, verdict.against)]
        rows += [row for row in of_kind(results, "family") if row.of == name]
        if len(rows) > 2:
            found.append((name, _cells(results, [rows], family_columns(results))[0]))
    return found


def _figures(results: Results, arrays: Arrays) -> Iterator[dict[str, Any]]:
    for plate in FIGURES:
        figure = plate.draw(results, arrays)
        if figure is None:
            continue
        kind, content = ("png", png(figure)) if plate.pixels else ("svg+xml", svg(figure))
        yield plate.shown(embedded(content, kind))


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    """What someone needs to judge the numbers, and to measure them again."""
    sizes = {row.samples for row in results.rows if row.kind != "floor" and row.samples}
    if sizes:
        many = thousands(min(sizes)) if len(sizes) == 1 else f"{thousands(min(sizes))} to {thousands(max(sizes))}"
        yield "samples", f"{many} per row, from the same noise and labels in every row"
    if results.seed is not None:
        yield "seed", str(results.seed)
    if results.training_images is not None:
        yield "training data", f"{thousands(results.training_images)}, all of them searched for copies"
    if results.weights:
        yield "weights", f"{results.weights}: this model was not trained here"
    if results.left_out:
        yield "left out", str(results.left_out)
    if finite(results.threshold) is not None:
        yield "a copy is", f"d1 / d2 below {number(results.threshold, 4)}, in the model's space, unclipped"
    if (quality := results.quality) is not None:
        against = f", against {thousands(quality.reference)} real samples" if quality.reference else ""
        yield "quality", f"{quality_label(results)}{against}"
        if results.verdicts and quality.unseen:
            yield "verdicts compare with", _real_samples(quality)
    if results.verdicts and results.margins:
        yield "margins", _margins(results)
    if results.space:
        yield "space of energies", str(results.space)
    if finite(results.tau_split) is not None:
        yield "early ends at", f"t = {results.tau_split}"
    if results.duration_s is not None:
        yield "time taken", _duration(results.duration_s)
    if results.hardware:
        yield "hardware", results.hardware
    if results.command:
        yield "command", results.command
    if results.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())


def _real_samples(quality: QualityFacts) -> str:
    which = f"{thousands(quality.unseen)} {'held-out' if quality.held_out else 'real'} samples"
    if quality.seen is None:
        return f"{which}; whether training saw them is unknown"
    if quality.seen == 0:
        return f"{which} that training did not see"
    return f"{which}, of which training saw {number(100 * quality.seen, 0)}%: copies come closer to these"


def _margins(results: Results) -> str:
    margins, known = results.margins, (v for v in results.verdicts if v.margin.floor and (v.base_quality or 0) > 0)
    floor = "two standard errors of the real samples"
    if verdict := next(known, None):
        assert verdict.margin.floor is not None
        assert verdict.base_quality is not None
        share_ = 100 * verdict.margin.floor / verdict.base_quality
        floor = f"{share_:.2g}%, two standard errors of {thousands(verdict.margin.references)} real samples"
    return (
        f"{100 * margins['memorized']:g} points of F_mem, at most {100 * margins['of_base']:g}% of the baseline's, plus "
        f"{100 * margins['quality']:g}% of the baseline's distance, and at least {floor}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
