"""A number as a dot on the line of its 95% interval: the forests and the diagnosis draw all of theirs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from fm_lightning.phrases import finite, signed, true_minus
from fm_lightning.report.style import INK, MUTED


def dot(
    axes: Axes,
    y: float,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    colour: Any = INK,
    width: float = 1.6,
    limits: tuple[float, float] | None = None,
    **marker: Any,
) -> None:
    """Draws one estimate at the height ``y``; a number beyond the limits is an arrow at their edge, with the number.

    Args:
        axes: where to draw.
        y: height.
        value: the number.
        low, high: its interval; without both no line is drawn.
        colour: of line and dot.
        width: of the line.
        limits: those of the axes, where a number may lie beyond them.
        marker: keywords of ``plot`` for the dot.
    """
    if limits is not None and not limits[0] <= value <= limits[1]:
        _beyond(axes, y, value, colour, *limits)
        return
    ends = [end for end in (finite(low), finite(high)) if end is not None]
    if len(ends) == 2:
        axes.plot(ends, [y, y], color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
    style = {"marker": "o", "markersize": 7.0, "color": colour, "linestyle": "none"} | marker
    axes.plot([value], [y], **style, zorder=4, clip_on=False)


def _beyond(axes: Axes, y: float, value: float, colour: Any, left: float, right: float) -> None:
    edge, inwards = (right, -1) if value > right else (left, 1)
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", (edge, y), (edge + inwards * 0.06 * (right - left), y), arrowprops=arrow)
    axes.annotate(
        true_minus(signed(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2)),
        (edge + inwards * 0.07 * (right - left), y),
        fontsize=8,
        color=colour,
        va="center",
        ha="right" if inwards < 0 else "left",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        zorder=5,
    )


def forest_axes(axes: Axes, limits: tuple[float, float], ticks: int = 5) -> None:
    """Axes with a line at no change, nothing at the heights, and at most so many ticks, for dots."""
    axes.set_xlim(*limits)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=1.0, zorder=1)
    axes.locator_params(axis="x", nbins=ticks)
    axes.ticklabel_format(axis="x", scilimits=(-2, 5))


def line_name(axes: Axes, y: float, text: str, left: float = -10.0, **how: Any) -> float:
    """Writes the name of a line before the axes; returns how far to the left it ends, in points."""
    written = axes.annotate(
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
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return left - written.get_window_extent(renderer).width * 72 / axes.figure.dpi


def dots(
    axes: Axes,
    estimates: Sequence[Mapping[str, Any]],
    colour: Any = INK,
    shift: float = 0.0,
    hollow: bool = False,
    label: str = "",
) -> None:
    """Draws estimates (as JSON) at the heights 0, -1, -2, ... plus ``shift``; 95% intervals as lines."""
    for place, found in enumerate(estimates):
        value = finite(found.get("value"))
        if value is not None:
            inner = "white" if hollow else colour
            ends = found.get("low"), found.get("high")
            dot(axes, shift - place, value, *ends, colour=colour, markerfacecolor=inner, label=label or None)
            label = ""


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the lines of ``dots``, from the top."""
    axes.set_yticks([-i for i in range(len(names))], names)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
