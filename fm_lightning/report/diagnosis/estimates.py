"""Estimates as dots with their intervals, one line each; the undefined say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from fm_lightning.report.results import finite
from fm_lightning.report.style import INK, MUTED

Found = Mapping[str, Any]  # an Estimate as JSON
ENERGY_WORDS = {
    "kpe": "KPE",
    "early": "early KPE",
    "late": "late KPE",
    "displacement": "displacement",
    "excess": "excess",
}


def dots(
    axes: Axes, estimates: Sequence[Found], colour: Any = INK, shift: float = 0.0, hollow: bool = False, label: str = ""
) -> None:
    """Draws each at the height 0, -1, -2, ... plus ``shift``; 95 % intervals as lines."""
    shown = label
    for place, found in enumerate(estimates):
        value, y = finite(found.get("value")), shift - place
        if value is None:
            continue
        low, high = finite(found.get("low")), finite(found.get("high"))
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(
            value,
            y,
            marker="o",
            markersize=5.5,
            color=colour,
            markerfacecolor="white" if hollow else colour,
            linestyle="none",
            label=shown or None,
        )
        shown = ""


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the lines, from the top."""
    axes.set_yticks([-i for i in range(len(names))], names)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def note(axes: Axes, text: str) -> None:
    """A few words in place of a drawing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=8.5, wrap=True)
