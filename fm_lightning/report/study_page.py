"""The page and the files of a study: ``study.html``, ``study.json``, ``study.csv``, ``curves.csv`` and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fm_lightning.files import csv_table, write_whole
from fm_lightning.phrases import MISSING, number, share, thousands
from fm_lightning.report.study_figures import FIGURES
from fm_lightning.report.style import Plate, embedded, png, svg, template
from fm_lightning.study import wording
from fm_lightning.study.curves import SERIES, Curve

PAGE = "study.html"
RUN_COLUMNS = (
    *("last_step", "tau_gen", "tau_mem", "window", "distance_best", "step_best", "f_mem_best"),
    *("distance_matched", "step_matched", "f_mem_matched", "f_mem_last"),
)


def write_study(folder: Path, study: Mapping[str, Any], curves: Sequence[Curve]) -> Path:
    """Writes everything, the page last, and returns its path."""
    write_whole(folder / "study.json", json.dumps(study, indent=1, ensure_ascii=False))
    write_whole(folder / "study.csv", csv_table(run_lines(study)))
    write_whole(folder / "curves.csv", csv_table(curve_lines(curves)))
    figures = {plate: figure for plate in FIGURES if (figure := plate.draw(study, curves))}
    for plate, figure in figures.items():
        (folder / "figures").mkdir(exist_ok=True)
        write_whole(folder / "figures" / f"{plate.key}.png", png(figure, 110))
    return write_whole(folder / PAGE, render(folder.resolve().name, study, figures))


def render(name: str, study: Mapping[str, Any], figures: Mapping[Plate, Figure]) -> str:
    """The page as HTML with everything inside: no script, no address of anything outside."""
    return template("study.html").render(
        name=name,
        study=study,
        headline=wording.headline(study),
        sentences=list(wording.sentences(study)),
        figures=[plate.shown(embedded(svg(figure), "svg+xml")) for plate, figure in figures.items()],
        groups=[_group(study, entry) for entry in study["groups"]],
        exponents=[wording.exponent_line(entry, study) for entry in study["exponents"]],
        runs=[_run(study, run) for run in study["runs"]],
        share=f"{100 * study['share']:g}%",
        margin=f"{100 * study['margin']:g}%",
    )


def _group(study: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """A line of the table over seeds."""
    copies = [_percent(entry[key]) for key in ("f_mem_best", "f_mem_matched", "f_mem_last")]
    return [
        wording.place(entry["at"], study["short"]) or "all",
        str(entry["runs"]),
        wording.steps(entry["tau_gen"]),
        wording.steps(entry["tau_mem"]) + ("" if entry["passed"] == entry["runs"] else f" ({entry['passed']} passed)"),
        wording.number(entry["window"]),
        *copies,
    ]


def _percent(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return MISSING
    scaled = {key: None if found[key] is None else 100 * found[key] for key in ("value", "low", "high")}
    return wording.number(scaled, 1)


def _run(study: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    times = [
        (thousands(run[key]) if run[key] else MISSING) + (f" ({run[f'{key}_note']})" if run[f"{key}_note"] else "")
        for key in ("tau_gen", "tau_mem")
    ]
    distance = (
        f"{number(run.get('distance_best'), 3)} at {thousands(run['step_best'])}" if "distance_best" in run else MISSING
    )
    departures = [
        thousands(run["departures"][key]["step"]) if run["departures"].get(key, {}).get("step") else MISSING
        for key in ("kpe_late", "loss_gap", "f_mem")
    ]
    copies = [share(run.get("f_mem_best")), share(run["f_mem_last"])]
    return [run["name"], *times, distance, *copies, *departures]


def run_lines(study: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line per run."""
    for run in study["runs"]:
        departures = {f"departs_{name}": found["step"] for name, found in run["departures"].items()}
        yield {"run": run["name"], **run["values"], **{key: run.get(key) for key in RUN_COLUMNS}, **departures}


def curve_lines(curves: Sequence[Curve]) -> Iterator[dict[str, Any]]:
    """One line per run and validation."""
    for curve in curves:
        for i, step in enumerate(curve.steps):
            found = {key: float(curve.get(key)[i]) for key in SERIES}
            known = {key: value if value == value else None for key, value in found.items()}
            yield {"run": curve.name, **curve.values, "step": int(step), **known}
