"""Forest: what each row changes against plain sampling, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_lightning.report.formats import signed, true_minus
from fm_lightning.report.results import Arrays, Results, Row, groups, interval, quality_key, subtitle, title
from fm_lightning.report.style import (
    MUTED,
    WIDTH,
    colours,
    new_figure,
    point_style,
    styled,
    within,
)


@styled
def change_forest(results: Results, arrays: Arrays) -> Figure | None:
    """Paired change of F_mem, and of the Fréchet distance, against base: each schedule above its true clock, then fields."""
    measures = [("f_mem", 100.0, "change of F_mem, points", "left: fewer copies than base", 1)]
    key = quality_key(results)
    if key is not None and any(interval(row, "vs_base", key) for row in results.rows):
        measures.append((key, 1.0, "change of the Fréchet distance", "left: nearer to real data than base", 2))
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
    for axes, (name, scale, words, hint, digits) in zip(panels, measures):
        _panel(axes, shown, places, tint, name, scale, digits)
        axes.set_title(words)
        axes.set_xlabel(hint)
    rows = [row for group in shown for row in group]
    panels[0].set_ylim(at - 0.4, -0.6)
    panels[0].set_yticks([])
    for row in rows:
        _name(panels[0], row, places[row.name], tint[row.name])
    return figure


def _name(axes: Axes, row: Row, y: float, colour) -> None:
    """``name  label`` to the left of the axes, the name in the schedule's colour."""

    def write(text: str, left: float, **how):
        return axes.annotate(
            text,
            (0, y),
            (left, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            annotation_clip=False,
            **how,
        )

    left = -10.0
    if subtitle(row):
        aside = write(subtitle(row), left, color=MUTED)
        renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        left -= aside.get_window_extent(renderer).width * 72 / axes.figure.dpi + 7
    control = row.kind == "control"
    write(title(row), left, color=MUTED if control else colour, weight="normal" if control else "bold")


def _panel(axes: Axes, shown: Sequence[Sequence[Row]], places, tint, name, scale, digits) -> None:
    ends: list[float] = []
    for group in shown:
        for row in group:
            if row.kind in ("schedule", "control"):
                ends += interval(row, "vs_base", name, scale) or ()
    lo, hi = within(ends, 0.0, reach=4.0)
    axes.set_xlim(lo, hi)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=1.0, zorder=1)
    axes.margins(y=0)
    for group in shown:
        for row in group:
            change = interval(row, "vs_base", name, scale)
            if change is not None:
                _estimate(axes, row, places[row.name], change, tint[row.name], (lo, hi), digits)


def _estimate(axes: Axes, row: Row, y: float, parts, colour, limits, digits: int) -> None:
    """A point with its interval; an arrow at the edge, with the number, for what lies beyond it."""
    value, lo, hi = parts
    left, right = limits
    if not left <= value <= right:
        edge, inwards = (right, -1) if value > right else (left, 1)
        axes.annotate(
            "",
            (edge, y),
            (edge + inwards * 0.05 * (right - left), y),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4},
        )
        axes.annotate(
            true_minus(signed(value, digits)),
            (edge + inwards * 0.06 * (right - left), y),
            fontsize=8,
            color=colour,
            va="center",
            ha="right" if inwards < 0 else "left",
        )
        return
    thick = 2.4 if row.kind == "schedule" else 1.3
    axes.plot([lo, hi], [y, y], color=colour, linewidth=thick, zorder=3, clip_on=True)
    axes.plot([value], [y], **point_style(row, colour, 7.0 if row.kind == "schedule" else 6.0), zorder=4, clip_on=False)
