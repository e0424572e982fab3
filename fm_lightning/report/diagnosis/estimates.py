"""Estimates as dots with their intervals, one line each; the undefined say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from fm_lightning.phrases import finite
from fm_lightning.report.dots import dot
from fm_lightning.report.style import INK

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
    """Draws each at the height 0, -1, -2, ... plus ``shift``; 95% intervals as lines."""
    for place, found in enumerate(estimates):
        value = finite(found.get("value"))
        if value is not None:
            inner = "white" if hollow else colour
            ends = found.get("low"), found.get("high")
            dot(axes, shift - place, value, *ends, colour=colour, markerfacecolor=inner, label=label or None)
            label = ""


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the lines, from the top."""
    axes.set_yticks([-i for i in range(len(names))], names)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
