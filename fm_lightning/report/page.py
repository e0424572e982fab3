"""The page: one self-contained ``report.html`` beside the results that it is made from."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fm_lightning.report.columns import columns
from fm_lightning.report.figures import FIGURES
from fm_lightning.report.formats import count, number, share, signed, span, true_minus
from fm_lightning.report.results import (
    Arrays,
    Results,
    base_row,
    finite,
    groups,
    interval,
    metric,
    of_kind,
    quality_key,
    replace_file,
    subtitle,
    title,
)
from fm_lightning.report.style import colours, png, svg
from fm_lightning.report.words import BEATS, EXPLAINED, TRADES, headline, scope, verdict_on, verdicts

OUTCOMES = {
    "stands": "beats them all",
    "mixed": "trade-off",
    "explained": "explained",
    "unchanged": "no effect",
    "worse": "worse than base",
    "untested": "no controls",
}
GLOSSARY = (
    (
        "F_mem",
        "Share of samples whose nearest training image is closer than the second nearest by the threshold.",
    ),
    ("paired", "Both samplings start from the same noise with the same label, seed by seed."),
    ("KPE", "Kinetic path energy: half the integral of the squared velocity, summed over dimensions."),
    ("early, late", "The part of KPE spent before the split time, and from it on."),
    ("excess", "KPE minus the energy of the straight line between the same two ends."),
    ("NFE", "Network evaluations per sample."),
    (
        "controls",
        "Plain sampling matched to a schedule in one side effect: its step sizes with the true clock, a "
        "stop at the same displacement, a constant gain of the same displacement, added noise of the "
        "same size, fewer steps.",
    ),
    (BEATS, "The schedule is better than this control in one measure and not worse in the other."),
    (EXPLAINED, "This control does as much as the schedule, without its idea."),
    (TRADES, "Against this control the schedule wins one measure and loses the other."),
    ("floors", "No model at all: held-out real data, and copies of training data."),
)


def write_report(run_dir: str | os.PathLike[str], results: Results, arrays: Arrays) -> Path:
    """Writes ``RUN_DIR/report.html`` and returns its path."""
    return replace_file(Path(run_dir) / "report.html", render(results, arrays).encode("utf-8"))


def render(results: Results, arrays: Arrays) -> str:
    """The page as HTML with everything inside: no script, no address of anything outside."""
    loader = PackageLoader("fm_lightning.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    table = _table(results)
    found = [row for group in table for row in group]
    return environment.get_template("page.html").render(
        name=results.get("name") or "comparison",
        created=_date(results.get("created")),
        headline=headline(results),
        scope=scope(results),
        tiles=list(_tiles(results)),
        verdicts=verdicts(results),
        outcomes=OUTCOMES,
        colours={row["name"]: row["colour"] for row in found},
        base=(base_row(results) or {"name": "base"})["name"],
        columns=columns(results),
        groups=table,
        has_verdicts=any(row["verdict"] for row in found),
        explains=EXPLAINED,
        glossary=GLOSSARY,
        figures=list(_figures(results, arrays)),
        facts=list(_facts(results)),
        config=_config(results.get("config")),
    )


def _date(created: object) -> str:
    try:
        return datetime.fromisoformat(str(created)).strftime("%d %B %Y, %H:%M").lstrip("0")
    except ValueError:
        return ""


def _tiles(results: Results) -> Iterator[dict[str, str]]:
    """The few numbers at the head of the page."""
    base, key = base_row(results), quality_key(results)
    if base is not None and metric(base, "f_mem") is not None:
        lo_hi = span(metric(base, "f_mem_lo"), metric(base, "f_mem_hi"), share, 1)
        aside = f"{lo_hi}, N = {count(results.get('samples'))}"
        yield _tile("copies under plain sampling", share(metric(base, "f_mem")), "%", aside)
    if base is not None and key is not None and metric(base, key) is not None:
        quality = results.get("quality") or {}
        label = str(quality.get("label", key))
        aside = f"plain sampling, N = {count(quality.get('samples'))}"
        yield _tile(label, number(metric(base, key)), "", aside)
    shaped = of_kind(results, "schedule")
    changes = [(found, row) for row in shaped if (found := interval(row, "vs_base", "f_mem", 100))]
    if changes:
        (change, lo, hi), row = min(changes, key=lambda pair: pair[0][0])
        aside = f"{title(row)} {true_minus(span(lo, hi, signed, 1))}"
        yield _tile("largest fall in copies", true_minus(signed(change, 1)), "points", aside)
    tested = [verdict for verdict in verdicts(results) if verdict.outcome != "untested"]
    if tested:
        standing = sum(verdict.outcome == "stands" for verdict in tested)
        yield _tile("beat all their controls", f"{standing} of {len(tested)}", "", "shaped schedules with controls")


def _tile(label: str, value: str, unit: str, aside: str) -> dict[str, str]:
    return {"label": label, "value": value, "unit": unit, "aside": aside}


def _table(results: Results) -> list[list[dict[str, Any]]]:
    """The schedule table, cell by cell, in groups."""
    chosen, tint = columns(results), colours(results)
    return [
        [
            {
                "kind": row["kind"],
                "name": row["name"],
                "title": title(row),
                "subtitle": subtitle(row),
                "description": row.get("description") or "",
                "colour": tint[row["name"]] if row["kind"] != "control" else "",
                "cells": [(true_minus(column.cell(row)), true_minus(column.aside(row))) for column in chosen],
                "verdict": verdict_on(results, row) if row["kind"] == "control" else None,
            }
            for row in group
        ]
        for group in groups(results)
    ]


def _figures(results: Results, arrays: Arrays) -> Iterator[dict[str, Any]]:
    for plate in FIGURES:
        figure = plate.draw(results, arrays)
        if figure is None:
            continue
        kind, content = ("png", png(figure)) if plate.pixels else ("svg+xml", svg(figure))
        yield {
            "key": plate.key,
            "title": plate.title,
            "caption": plate.caption.replace(" %", "\u00a0%"),
            "folded": plate.folded,
            "uri": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
        }


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    """What someone needs to judge the numbers, and to measure them again."""
    quality = results.get("quality") or {}
    if results.get("samples") is not None:
        yield "samples", f"{count(results['samples'])} per row, from the same noise and labels in every row"
    if results.get("seed") is not None:
        yield "seed", str(results["seed"])
    if results.get("training_images") is not None:
        yield "training data", f"{count(results['training_images'])}, all of them searched for copies"
    if results.get("weights"):
        yield "weights", f"{results['weights']}: this model was not trained here"
    if results.get("left_out"):
        yield "left out", str(results["left_out"])
    if finite(results.get("threshold")) is not None:
        yield "a copy is", f"d1 / d2 below {number(results['threshold'], 4)}, in the model's space, unclipped"
    if quality.get("label"):
        against = f" against {count(quality['reference'])} real ones" if quality.get("reference") else ""
        yield "quality", f"{quality['label']}: {count(quality.get('samples'))} samples{against}"
    if results.get("space"):
        yield "space of energies", str(results["space"])
    if finite(results.get("tau_split")) is not None:
        yield "early ends at", f"t = {results['tau_split']}"
    if finite(results.get("duration_s")) is not None:
        yield "time taken", _duration(float(results["duration_s"]))
    for key in ("hardware", "command"):
        if results.get(key):
            yield key, str(results[key])
    if isinstance(results.get("versions"), Mapping):
        yield "versions", ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _config(config: object) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False, default=str) if config else ""
