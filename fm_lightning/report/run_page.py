"""The page on several runs: one self-contained ``compare.html``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fm_lightning.phrases import MISSING, decimals, number, share, thousands
from fm_lightning.report.run_forest import run_forest
from fm_lightning.report.run_table import OVER, lines
from fm_lightning.report.style import embedded, svg
from fm_lightning.report.templates import template

LEVELS = (
    ("f_mem", "F_mem %"),
    ("kpe_per_dimension", "KPE per dimension"),
    ("kpe_per_displacement", "KPE per displacement"),
)


def render(comparison: Mapping[str, Any], name: str) -> str:
    """The page as HTML with everything inside: no script, no address of anything outside."""
    figure = run_forest(comparison)
    return template("compare.html").render(
        name=name,
        comparison=comparison,
        figure=figure and embedded(svg(figure), "svg+xml"),
        experiments=[
            {
                **entry,
                "lines": list(lines(entry)),
                "pooled": any(s["effects"] and len(entry["runs"]) > 1 for s in entry["schedules"]),
                "levels": list(_levels(entry)),
            }
            for entry in comparison["experiments"]
        ],
        over=OVER,
        level_heads=[head for _, head in LEVELS],
        missing=MISSING,
        count=thousands,
    )


def _levels(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """(run, row, cells): the numbers themselves, in units that compare across data."""
    every = [levels for run in entry["runs"] for levels in run["levels"].values()]
    places = {key: decimals(levels.get(key) for levels in every) for key, _ in LEVELS}
    for run in entry["runs"]:
        for row, levels in run["levels"].items():
            cells = [
                share(levels.get(key)) if key == "f_mem" else number(levels.get(key), places[key]) for key, _ in LEVELS
            ]
            yield run["name"], row, cells
