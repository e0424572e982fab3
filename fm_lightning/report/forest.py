"""Forest: what each row changes against plain sampling, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_lightning.report.dots import dot, forest_axes, line_name
from fm_lightning.report.results import Arrays, Results, Row, groups, interval, quality_key, subtitle, title
from fm_lightning.report.style import MUTED, WIDTH, colours, new_figure, point_style, styled, within


@styled
def change_forest(results: Results, arrays: Arrays) -> Figure | None:
    """Paired change of F_mem, and of the Fréchet distance, against base: each schedule above its true clock, then fields."""
    measures = [("f_mem", 100.0, "change of F_mem, points", "left: fewer copies than base")]
    key = quality_key(results)
    if key is not None and any(interval(row, "vs_base", key) for row in results.rows):
        measures.append((key, 1.0, "change of the Fréchet distance", "left: nearer to real data than base"))
    shown = [[row for row in group if interval(row, "vs_base", "f_mem")] for group in groups(results)]
    shown = [group for group in shown if group]
    if not shown:
        return None
    places: dict[str, float] = {}
    at, before = 0.0, shown[0]
    for group in shown:
        apart = max(len(before), len(group)) > 1 or before[0].kind != group[0].kind
        at += 0.55 if places and apart else 0.0
        before = group
        for row in group:
            places[row.name] = at
            at += 1.0
    figure = new_figure(WIDTH, 0.9 + 0.235 * at, layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False, width_ratios=[1.25, 1][: len(measures)])[0]
    tint = colours(results)
    for axes, (name, scale, words, hint) in zip(panels, measures):
        _panel(axes, shown, places, tint, name, scale)
        axes.set_title(words)
        axes.set_xlabel(hint)
    rows = [row for group in shown for row in group]
    panels[0].set_ylim(at - 0.4, -0.6)
    panels[0].set_yticks([])
    for row in rows:
        _name(panels[0], row, places[row.name], tint[row.name])
    return figure


def _name(axes: Axes, row: Row, y: float, colour) -> None:
    """``name  label`` before the axes, the name in the schedule's colour."""
    left = -10.0
    if subtitle(row):
        left = line_name(axes, y, subtitle(row), left, color=MUTED) - 7
    control = row.kind == "control"
    line_name(axes, y, title(row), left, color=MUTED if control else colour, weight="normal" if control else "bold")


def _panel(axes: Axes, shown: Sequence[Sequence[Row]], places, tint, name: str, scale: float) -> None:
    rows = [row for group in shown for row in group]
    ends: list[float] = []
    for row in rows:
        if row.kind in ("schedule", "control"):
            ends += interval(row, "vs_base", name, scale) or ()
    limits = within(ends, 0.0, reach=4.0)
    forest_axes(axes, limits)
    for row in rows:
        if (change := interval(row, "vs_base", name, scale)) is not None:
            main = row.kind == "schedule"
            style = point_style(row, tint[row.name], 7.5 if main else 6.5)
            width = 2.4 if main else 1.3
            dot(axes, places[row.name], *change, colour=tint[row.name], width=width, limits=limits, **style)
