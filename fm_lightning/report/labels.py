"""Direct labels that do not overlap: next to points, and at the right ends of lines.

``adjustText`` also moves labels apart, but it imports pyplot, whose global state is never touched here, and it cannot prefer
to cross a thin line over a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from fm_lightning.report.style import FAINT


@dataclass(frozen=True)
class Label:
    """``text`` for the point ``(x, y)`` in data coordinates."""

    x: float
    y: float
    text: str
    colour: Any
    weight: str = "bold"


SIZE = 8.5  # points
_ANGLES = np.deg2rad([20, -20, 160, -160, 55, -55, 125, -125, 90, -90, 0, 180])
_RADII = (9, 16, 26, 38, 52, 70)  # points; the first that is free wins


def place(
    axes: Axes,
    labels: Sequence[Label],
    avoid: Sequence[tuple[float, float]],
    rather_not: Sequence[tuple[float, float]] = (),
    size: float = SIZE,
) -> None:
    """Writes each label near its point, off the points in ``avoid`` (data coordinates) and off each other.

    Points in ``rather_not`` (say, along thin lines) are crossed where nothing better is free.

    Greedy: of candidates on growing circles around each point the cheapest is taken; a thin leader runs to a
    label that had to move away. Call it when the limits of the axes are final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # fixes the layout that the coordinates below depend on
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    marks = axes.transData.transform(np.asarray(list(avoid) + [(label.x, label.y) for label in labels]).reshape(-1, 2))
    lines = axes.transData.transform(np.asarray(list(rather_not), dtype=float).reshape(-1, 2))
    frame = axes.get_window_extent(renderer)
    taken: list[Bbox] = []
    for label in labels:
        probe = axes.text(0, 0, label.text, fontsize=size, weight=label.weight)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        at = axes.transData.transform((label.x, label.y))
        best, least = None, np.inf
        for box in _candidates(at, extent.width, extent.height, scale):
            cost: float = 60 * _covered(box, marks, 5 * scale) + 4 * min(_covered(box, lines, scale), 6)
            cost += _cost(box, taken, frame, at, scale)
            if cost < least:
                best, least = box, cost
        assert best is not None
        taken.append(best)
        middle = ((best.x0 + best.x1) / 2, (best.y0 + best.y1) / 2)
        offset = (np.asarray(middle) - at) / scale
        gap = np.hypot(*(np.clip(at, (best.x0, best.y0), (best.x1, best.y1)) - at)) / scale
        leader = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
        axes.annotate(
            label.text,
            (label.x, label.y),
            offset,
            textcoords="offset points",
            fontsize=size,
            color=label.colour,
            weight=label.weight,
            ha="center",
            va="center",
            arrowprops=leader if gap > 11 else None,
            zorder=6,
        )


def _candidates(at, width: float, height: float, scale: float) -> list[Bbox]:
    found = []
    for radius in _RADII:
        for angle in _ANGLES:
            dx, dy = np.cos(angle), np.sin(angle)
            # the box touches the circle with the side or corner that faces the point
            x = at[0] + radius * scale * dx + (0 if abs(dx) < 1e-6 else np.sign(dx) * width / 2 * min(1, 2 * abs(dx)))
            y = at[1] + radius * scale * dy + np.sign(round(dy, 6)) * height / 2 * min(1, 2 * abs(dy))
            found.append(Bbox.from_bounds(x - width / 2, y - height / 2, width, height))
    return found


def _covered(box: Bbox, points: np.ndarray, reach: float) -> int:
    x, y = points.T
    inside = (x > box.x0 - reach) & (x < box.x1 + reach) & (y > box.y0 - reach) & (y < box.y1 + reach)
    return int(inside.sum())


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox, at, scale: float) -> float:
    overlap = sum(box.padded(2 * scale).overlaps(other) for other in taken)
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    distance = np.hypot(*(np.clip(at, (box.x0, box.y0), (box.x1, box.y1)) - at)) / scale
    return 100 * overlap + 200 * outside + distance


def at_line_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes labels to the right of the axes at the heights of their lines' ends, apart from each other."""
    if not labels:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    height = figure.dpi / 72 * SIZE * 1.3 / max(frame.height, 1.0)  # in fractions of the axes
    order = sorted(labels, key=lambda label: label.y)
    ends = axes.transData.transform([(label.x, label.y) for label in order])
    wanted = np.clip((ends[:, 1] - frame.y0) / max(frame.height, 1.0), 0.0, 1.0)
    for label, end, y in zip(order, wanted, _spread(wanted, height)):
        axes.annotate(
            label.text,
            (1.0, end),
            (1.035, y),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=SIZE,
            color=label.colour,
            weight=label.weight,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )


def _spread(wanted: np.ndarray, height: float) -> np.ndarray:
    """Heights in the given ascending order, at least ``height`` apart, as near to ``wanted`` as possible."""
    shift = np.arange(len(wanted)) * height
    blocks: list[list[float]] = []  # pooled neighbours: [sum of wanted - shift, how many]
    for value in wanted - shift:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, many = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + many]
    return np.concatenate([np.full(int(many), total / many) for total, many in blocks]) + shift
