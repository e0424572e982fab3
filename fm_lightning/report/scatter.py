"""Quality against memorization: every row of the main table as a point."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fm_lightning.report.labels import Label, place
from fm_lightning.report.results import Arrays, Results, Row, metric, quality_key, quality_label, title
from fm_lightning.report.style import MUTED, WIDTH, colours, lighter, new_figure, point_style, styled, within


@styled
def quality_memorization(results: Results, arrays: Arrays) -> Figure | None:
    """Fréchet distance against F_mem: schedules joined to their true clock; an overview with all rows."""
    key = quality_key(results)
    if key is None:
        return None
    at = {
        row.name: (100 * x, y)
        for row in results.rows
        if row.kind != "family" and (x := metric(row, "f_mem")) is not None and (y := metric(row, key)) is not None
    }
    rows = [row for row in results.rows if row.name in at]
    if not rows:
        return None
    near = [row for row in rows if row.kind in ("base", "schedule", "control")] or rows
    centre = at[near[0].name]
    x_limits = within((at[row.name][0] for row in near), centre[0], reach=5)
    y_limits = within((at[row.name][1] for row in near), centre[1], reach=5)
    inside = [
        row
        for row in rows
        if x_limits[0] <= at[row.name][0] <= x_limits[1] and y_limits[0] <= at[row.name][1] <= y_limits[1]
    ]
    outside = len(inside) < len(rows)
    figure = new_figure(WIDTH, 4.9, layout="constrained")
    panels = figure.subplots(1, 2 if outside else 1, width_ratios=[2.5, 1] if outside else None, squeeze=False)[0]
    tint = colours(results)
    label = quality_label(results)
    for axes in panels:
        axes.set_xlabel("F_mem, % of samples that are copies")
    x_limits = max(x_limits[0], -2.0), min(x_limits[1], 102.0)
    panels[0].set(xlim=x_limits, ylim=y_limits, ylabel=f"{label}, lower is better")
    _cloud(panels[0], inside, at, tint, whiskers=True)
    _towards_better(panels[0])
    if outside:
        overview = panels[1]
        overview.set_title("overview, close-up framed", fontsize=9)
        _cloud(overview, rows, at, tint, whiskers=False, size=4.5)
        overview.margins(0.16)
        left, right = overview.get_xlim()
        overview.set_xlim(max(left, -5), min(right, 108))  # a share, with room for dots at 0 and 100%
        if min(y for _, y in at.values()) > 0:  # a plug-in distance, which is never below 0
            overview.set_ylim(bottom=max(overview.get_ylim()[0], 0.0))
        size = (x_limits[1] - x_limits[0], y_limits[1] - y_limits[0])
        box = Rectangle((x_limits[0], y_limits[0]), *size, facecolor="none", edgecolor=MUTED, linewidth=1.0, zorder=5)
        overview.add_patch(box)
        far = [row for row in rows if row not in inside]
        names = [
            Label(
                *at[row.name],
                textwrap.fill(title(row), 14, break_long_words=False, break_on_hyphens=False),
                tint[row.name],
                "normal",
            )
            for row in far
        ]
        panels[0].set_title("close-up")
        place(overview, names, [at[row.name] for row in rows], size=8)
    named = [row for row in inside if row.kind != "control"]
    labels = [Label(*at[row.name], title(row), tint[row.name]) for row in named]
    place(panels[0], labels, [at[row.name] for row in inside], _along(inside, at))
    return figure


def _along(rows: Sequence[Row], at) -> list[tuple[float, float]]:
    """Points along the whiskers and links of ``_cloud``, for labels to keep off."""
    found = []
    for row in rows:
        here, ends = at[row.name], None
        if row.kind == "control" and row.of in at:
            ends = (here, at[row.of])
        elif (lo := metric(row, "f_mem_lo")) is not None and (hi := metric(row, "f_mem_hi")) is not None:
            ends = ((100 * lo, here[1]), (100 * hi, here[1]))
        found += [(x, y) for x, y in np.linspace(np.asarray(ends[0]), ends[1], 40)] if ends else []
    return found


def _cloud(axes: Axes, rows: Sequence[Row], at, tint, *, whiskers: bool, size: float = 7.5) -> None:
    for row in rows:
        x, y = at[row.name]
        colour = tint[row.name]
        if row.kind == "control" and row.of in at:
            parent = at[row.of]
            axes.plot([x, parent[0]], [y, parent[1]], color=lighter(tint[row.of], 0.6), linewidth=0.8, zorder=1.5)
        lo, hi = metric(row, "f_mem_lo"), metric(row, "f_mem_hi")
        if whiskers and lo is not None and hi is not None and row.kind != "control":
            axes.plot([100 * lo, 100 * hi], [y, y], color=lighter(colour, 0.55), linewidth=1.2, zorder=1.8)
        above = {"control": 3.0, "schedule": 4.0, "base": 4.5}.get(row.kind, 3.5)
        axes.plot([x], [y], **point_style(row, colour, size), zorder=above)


def _towards_better(axes: Axes) -> None:
    axes.annotate(
        "better",
        (0.02, 0.025),
        (0.085, 0.11),
        xycoords="axes fraction",
        textcoords="axes fraction",
        fontsize=8.5,
        color=MUTED,
        ha="left",
        va="bottom",
        arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2},
    )
