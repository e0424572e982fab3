"""The forest of runs: what each schedule changes in every run, one panel per measure, replicates' diamond below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_lightning.report.dots import dot, forest_axes, line_name
from fm_lightning.report.style import INK, MUTED, PALETTE, WIDTH, lighter, new_figure, styled, within

Comparison = Mapping[str, Any]  # of across_runs.build
DIAMOND = np.array([0.0, -0.32, 0.0, 0.32])  # its corners' heights


@dataclass(frozen=True)
class Panel:
    """A measure as people read it: its ``scale`` from the stored number, the axis' words."""

    title: str
    hint: str
    scale: float = 1.0


PANELS: Mapping[str, Panel] = {
    "f_mem": Panel("copies", "change in points; left: fewer", 100),
    "quality_kernel": Panel("kernel distance", "change, % of plain sampling's", 100),
    "quality_frechet": Panel("Fréchet distance", "change, % of plain sampling's, unbiased", 100),
    "kpe_per_dimension": Panel("KPE / dimension", "change"),
    "kpe_per_displacement": Panel("KPE / displacement", "change"),
}


def panel(measure: str) -> Panel:
    """How a measure is shown; a plug-in Fréchet distance goes by its own name."""
    if measure.startswith("residual_"):
        return Panel(f"beyond {measure.removeprefix('residual_')}", "% of plain sampling's", 100)
    return PANELS.get(measure) or Panel(f"change of {measure}", "plug-in")


def shown(comparison: Comparison) -> list[str]:
    """The measures that the figure shows: F_mem, the distance that most runs have (of two the one that judges), KPE."""
    runs: Counter[str] = Counter()
    for entry in comparison["experiments"]:
        for schedule in entry["schedules"]:
            runs.update({m: len(e["runs"]) for m, e in schedule["effects"].items() if not m.startswith("residual_")})
    distances = [m for m in runs if m not in PANELS or m.startswith("quality_")]
    distances.sort(key=lambda m: (-runs[m], m not in PANELS))
    order = ["f_mem", *distances[:1], "kpe_per_dimension", "kpe_per_displacement"]
    return [measure for measure in order if measure in runs]


@styled
def run_forest(comparison: Comparison) -> Figure | None:
    """A point with its 95% interval for every run; over replicates a diamond, and a thin line for another replicate."""
    measures = shown(comparison)
    lines = list(_lines(comparison, measures))
    if not lines:
        return None
    height = lines[-1].y + 1
    figure = new_figure(WIDTH, 0.95 + 0.22 * height, layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures):
        _draw(axes, lines, measure)
    panels[0].set_ylim(height - 0.3, -0.7)
    panels[0].set_yticks([])
    for line in lines:
        colour = {"head": line.colour, "run": MUTED, "combined": INK}[line.kind]
        line_name(panels[0], line.y, line.text, color=colour, weight="normal" if line.kind == "run" else "bold")
    return figure


@dataclass(frozen=True)
class _Line:
    """One height of the figure: a run's effects, replicates' combined ones, or a schedule's name alone."""

    y: float
    text: str
    colour: Any
    kind: str  # "head", "run" or "combined"
    effects: Mapping[str, Any]


def _lines(comparison: Comparison, measures: Sequence[str]) -> Iterator[_Line]:
    names = list(dict.fromkeys(s["schedule"] for e in comparison["experiments"] for s in e["schedules"]))
    y = 0.0
    for entry in comparison["experiments"]:
        for schedule in entry["schedules"]:
            effects = {m: schedule["effects"][m] for m in measures if m in schedule["effects"]}
            if not effects:
                continue
            colour = PALETTE[names.index(schedule["schedule"]) % len(PALETTE)]
            yield _Line(y, schedule["schedule"], colour, "head", {})
            y += 1
            for run in entry["runs"]:
                there = {m: e["runs"][run["name"]] for m, e in effects.items() if run["name"] in e["runs"]}
                if there:
                    yield _Line(y, run["name"], colour, "run", there)
                    y += 1
            combined = {m: e["combined"] for m, e in effects.items() if e["combined"]}
            if combined:
                counts = [each["replicates"] for each in combined.values()]
                many = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
                yield _Line(y, f"{many} replicates", colour, "combined", combined)
                y += 1
            y += 0.4


def _draw(axes: Axes, lines: Sequence[_Line], measure: str) -> None:
    how = panel(measure)
    here = [(line, line.effects[measure]) for line in lines if measure in line.effects]
    ends = [how.scale * effect[end] for _, effect in here for end in ("low", "value", "high")]
    lo, hi = within(ends, 0.0, reach=6.0)
    forest_axes(axes, (lo, hi), ticks=3)
    axes.set_title(how.title)
    axes.set_xlabel(how.hint.replace(", ", ",\n").replace("; ", "\n"))
    for line, effect in here:
        value, low, high = (how.scale * effect[key] for key in ("value", "low", "high"))
        if line.kind == "run" or not lo <= value <= hi:
            dot(axes, line.y, value, low, high, colour=line.colour, limits=(lo, hi))
        else:
            if effect["prediction"]:
                reach = [how.scale * end for end in effect["prediction"]]
                axes.plot(reach, [line.y] * 2, color=lighter(line.colour, 0.55), linewidth=1.0, zorder=2)
            axes.fill([low, value, high, value], line.y + DIAMOND, color=line.colour, linewidth=0, zorder=4)
