"""Frontier: a judged schedule next to the curves that trivial manipulations draw in (memorized share, distance).

Copies become fewer to the left, samples better downwards. A curve that clears the margin's box from above is one that the
schedule beats by more than the margin: with slope P' it passes ``r < -(dQ + |P'| dM)`` (``verdicts.family_verdict``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fm_lightning.comparison.results import VerdictResult
from fm_lightning.phrases import finite
from fm_lightning.report.labels import Label, place
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.results import Arrays, Results, metric
from fm_lightning.report.style import FAINT, GRID, INK, MUTED, panels, styled

Point = tuple[float, float]  # memorized share in %, distance as a multiple of base's
REACH = 3.0  # how far above the schedule, in its own distance from base, a curve is still shown


@styled
def frontier(results: Results, arrays: Arrays) -> Figure | None:
    """One panel for each judged schedule whose distance to real data was measured."""
    shown = [v for v in results.verdicts if {v.schedule, v.against} <= _points(results, v).keys()]
    if not shown:
        return None
    across = min(len(shown), 2 if len(shown) < 5 else 3)
    figure, grid = panels(len(shown), across, 3.3, 0.4)
    _legend(figure, results, shown)
    drawn = [_panel(axes, results, verdict) for axes, verdict in zip(grid.flat, shown)]
    for axes, (labels, points, along) in zip(grid.flat, drawn):
        place(axes, labels, points, along, size=8.5 if across < 3 else 8)
    return figure


def _points(results: Results, verdict: VerdictResult) -> dict[str, Point]:
    """Where each row lies by the distance that judges; empty without one, or where base is not away from real data."""
    measure, base = verdict.measure, finite(verdict.base_quality)
    found: dict[str, Point] = {}
    if not measure or base is None or base <= 0:
        return found
    for row in results.rows:
        copies, quality = metric(row, "f_mem"), metric(row, f"quality_{measure}")
        if copies is not None and quality is not None:
            found[row.name] = (100 * copies, quality / base)
    return found


def _panel(axes: Axes, results: Results, verdict: VerdictResult) -> tuple[list[Label], list[Point], list[Point]]:
    """Draws one schedule; returns the labels still to be placed, and the points and lines that they keep off."""
    name, base = verdict.schedule, verdict.against
    at = _points(results, verdict)
    here, start = at[name], at[base]
    axes.set_title(f"{name}: {OUTCOMES[verdict.outcome].words}", fontsize=9.5)
    axes.set_xlabel("copies, % of samples (left: fewer)")
    measure = {"frechet": "Fréchet", "kernel": "kernel"}[str(verdict.measure)]
    axes.set_ylabel(f"{measure} distance / {base}'s (down: better)")
    outcomes = _outcomes(verdict)
    labels, points, along = [], [start, here], []
    curves: list[tuple[str, np.ndarray, list[Point]]] = []
    for family, places in results.judged[name].families.items():
        for names in places:
            nodes = sorted((at[n] for n in names if n in at), reverse=True)
            if len({x for x, _ in nodes}) == 3:
                curves.append((family, _parabola(nodes), nodes))
    limits = _limits(axes, start, here, [node for _, _, nodes in curves for node in nodes], verdict)
    for family, curve, nodes in curves:
        outcome = outcomes.get(family, "undecided")
        colour = OUTCOMES[outcome].colour
        axes.plot(*zip(start, nodes[0]), color=colour, linewidth=0.7, zorder=2)
        axes.plot(*curve.T, color=colour, linewidth=1.7, zorder=2.5, gid=f"curve/{family}")
        style: dict[str, Any] = {"markersize": 4, "markerfacecolor": "white" if outcome == "undecided" else colour}
        axes.plot(*zip(*nodes), OUTCOMES[outcome].marker, color=colour, linestyle="none", zorder=3, **style)
        seen = curve[curve[:, 1] <= limits[1]]
        end = seen[-1] if len(seen) else nodes[0]
        labels.append(Label(float(end[0]), float(end[1]), family, colour))
        points += nodes
        along += [(float(x), float(y)) for x, y in curve]
    own = _own(results, name, start, here, at)
    axes.plot(*zip(*own), color=INK, linewidth=2.2, zorder=4, gid="own")
    axes.plot(*zip(*own[1:]), "o", color=INK, markersize=3.5, linestyle="none", zorder=4)
    axes.plot(*start, "o", color=INK, markerfacecolor="white", markersize=7, zorder=5)
    axes.plot(*here, "*", color=INK, markersize=13, zorder=6)
    _box(axes, here, verdict)
    along += [(float(x), float(y)) for a, b in itertools.pairwise(own) for x, y in np.linspace(a, b, 12)]
    return [Label(*here, name, INK), Label(*start, base, INK), *labels], points, along


def _outcomes(verdict: VerdictResult) -> dict[str, str]:
    return {family.family: family.outcome for family in verdict.families}


def _parabola(nodes: Sequence[Point]) -> np.ndarray:
    """``[60, 2]`` points of the parabola through three, from the most copies to the fewest."""
    x, y = np.asarray(nodes, dtype=float).T
    curve = np.polynomial.Polynomial.fit(x, y, 2)
    grid = np.linspace(x.max(), x.min(), 60)
    return np.stack([grid, curve(grid)], axis=1)


def _own(results: Results, name: str, start: Point, here: Point, at: Mapping[str, Point]) -> list[Point]:
    """The schedule's own dose curve, starting at base: rows ``NAME~own~K`` are labelled "FACTOR of its gain"."""
    doses = {0.0: start, 1.0: here}
    for row in results.rows:
        if row.name.startswith(f"{name}~own~") and row.name in at:
            doses[float(row.label.split()[0])] = at[row.name]
    return [doses[factor] for factor in sorted(doses)]


def _half_box(verdict: VerdictResult) -> Point:
    margin = verdict.margin
    return 100 * (margin.memorized or 0.0), (margin.quality or 0.0) / (verdict.base_quality or 1.0)


def _box(axes: Axes, here: Point, verdict: VerdictResult) -> None:
    wide, tall = _half_box(verdict)
    box = Rectangle((here[0] - wide, here[1] - tall), 2 * wide, 2 * tall, gid="margin", zorder=1.5)
    box.set(facecolor=GRID, edgecolor=MUTED, linewidth=0.9)
    axes.add_patch(box)


def _limits(axes: Axes, start: Point, here: Point, nodes: Sequence[Point], verdict: VerdictResult) -> Point:
    """Sets limits that hold base, schedule, box and doses, but no curve far above them; returns those of the distance."""
    wide, tall = _half_box(verdict)
    x = [start[0], here[0] - wide, here[0] + wide, *(x for x, _ in nodes)]
    kept = [start[1], here[1] - tall, here[1] + tall]
    top = max(kept) + REACH * max(abs(here[1] - start[1]), tall)
    kept += [min(y, top) for _, y in nodes]
    # A comparison without copies, or without any distance, has no extent of its own.
    side, head = 0.08 * (max(x) - min(x)) or 1.0, 0.1 * (max(kept) - min(kept)) or 0.1
    axes.set_xlim(max(min(x) - 3 * side, -2.0), min(max(x) + side, 102.0))  # room for labels at the curves' ends
    low, high = min(kept) - head, max(kept) + head
    axes.set_ylim(low, high)
    # A share below 0 or above 100% does not exist: there is only room for labels.
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*axes.get_xlim())
    axes.set_xticks([tick for tick in ticks if max(axes.get_xlim()[0], 0) <= tick <= min(axes.get_xlim()[1], 100)])
    axes.axhline(start[1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    return low, high


def _legend(figure: Figure, results: Results, shown: Sequence[VerdictResult]) -> None:
    found = {
        _outcomes(verdict).get(family)
        for verdict in shown
        for family, places in results.judged[verdict.schedule].families.items()
        if places
    }
    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker="*", markersize=11, color=INK, label="schedule"),
        Line2D([], [], linestyle="none", marker="o", markersize=6, color=INK, markerfacecolor="white", label="base"),
        Rectangle((0, 0), 1, 1, facecolor=GRID, edgecolor=MUTED, linewidth=0.9, label="margin"),
    ]
    for name, shown_as in OUTCOMES.items():
        if name in found:
            inner = "white" if name == "undecided" else shown_as.colour
            style: dict[str, Any] = {"marker": shown_as.marker, "markersize": 4, "markerfacecolor": inner}
            handles.append(Line2D([], [], color=shown_as.colour, label=shown_as.legend, **style))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles) if len(handles) < 7 else 4)
