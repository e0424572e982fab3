"""Figures along time: gains, energy, its distribution; F_mem along the threshold; scores along training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_lightning.phrases import decimals, finite, number
from fm_lightning.report.labels import Label, at_line_ends
from fm_lightning.report.results import (
    Arrays,
    Results,
    Row,
    base_row,
    metric,
    of_kind,
    quality_key,
    quality_label,
    title,
)
from fm_lightning.report.style import FAINT, INK, MUTED, WIDTH, colours, lighter, new_figure, panels, styled


def _stepwise(arrays: Arrays, what: str, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """``(values [S], edges [S + 1])`` of a row, or None where one of them is absent or does not fit."""
    values, edges = arrays.get(f"{what}/{row.name}"), arrays.get(f"times/{row.name}")
    if values is None or edges is None or values.ndim != 1 or edges.shape != (len(values) + 1,) or not len(values):
        return None
    return np.asarray(values, dtype=float), np.asarray(edges, dtype=float)


@styled
def gain_curves(results: Results, arrays: Arrays) -> Figure | None:
    """eta(t) of each schedule, and how far its displacement runs ahead of the clock the network is told."""
    curves = {row.name: found for row in of_kind(results, "schedule") if (found := _stepwise(arrays, "gain", row))}
    if not curves:
        return None
    figure = new_figure(WIDTH, 3.5, layout="constrained")
    left, right = figure.subplots(1, 2)
    tint = colours(results)
    left.set_title("gain η(t)")
    right.set_title("displacement minus clock, ∫η dt − t")
    ends = []
    for axes, level in ((left, 1.0), (right, 0.0)):
        axes.axhline(level, color=INK, linewidth=1.2, zorder=1)
        axes.set(xlabel="time t, noise to data", xlim=(0, 1))
        _split_line(axes, results)
    for row in of_kind(results, "schedule"):
        if row.name not in curves:
            continue
        gain, edges = curves[row.name]
        ahead = np.concatenate([[0.0], np.cumsum((gain - 1) * np.diff(edges))])
        left.stairs(gain, edges, baseline=None, color=tint[row.name], linewidth=1.6)
        right.plot(edges, ahead, color=tint[row.name])
        ends.append(Label(1.0, float(ahead[-1]), title(row), tint[row.name]))
    at_line_ends(right, [*ends, Label(1.0, 0.0, "base", INK)])
    return figure


def _split_line(axes: Axes, results: Results) -> None:
    split = finite(results.tau_split)
    if split is not None:
        axes.axvline(split, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0.8)


@styled
def energy_profile(results: Results, arrays: Arrays) -> Figure | None:
    """Mean power over time for base and fields, and each schedule's change from base in percent."""
    rows = of_kind(results, "base", "schedule", "field")
    curves = {row.name: found for row in rows if (found := _stepwise(arrays, "power", row))}
    if not curves:
        return None
    base = base_row(results)
    has_base = base is not None and base.name in curves
    figure = new_figure(WIDTH, 3.5, layout="constrained")
    left, *others = figure.subplots(1, 2 if has_base and len(curves) > 1 else 1, squeeze=False)[0]
    tint = colours(results)
    left.set(title="kinetic power, mean over samples", xlabel="time t, noise to data", xlim=(0, 1))
    left.set_ylabel("½‖dx/dt‖², energy per unit of time")
    for row in (row for row in rows if row.name in curves):
        power, edges = curves[row.name]
        width, above = (2.2, 3) if row.kind == "base" else (1.2, 2)
        dashes = (0, (2, 1.6)) if row.kind == "field" else "-"
        how: dict[str, Any] = {"color": tint[row.name], "linewidth": width, "linestyle": dashes, "zorder": above}
        left.plot((edges[1:] + edges[:-1]) / 2, power, label=title(row) if row.kind != "schedule" else None, **how)
    if len(left.get_legend_handles_labels()[0]):
        left.legend(loc="best")
    left.set_ylim(bottom=0)
    for axes in (left, *others):
        _split_line(axes, results)
    if not others:
        return figure
    right = others[0]
    right.set(title="change from base, %", xlabel="time t, noise to data", xlim=(0, 1))
    assert base is not None
    right.axhline(0, color=tint[base.name], linewidth=1.2)
    labels = [Label(1.0, 0.0, title(base), tint[base.name])]
    for row in of_kind(results, "schedule"):
        if (found := _stepwise(arrays, "power_change", row)) is None:
            continue
        change, edges = 100 * found[0], found[1]
        middle = (edges[1:] + edges[:-1]) / 2
        right.plot(middle, change, color=tint[row.name])
        if np.isfinite(change[-1]):
            labels.append(Label(float(middle[-1]), float(change[-1]), title(row), tint[row.name]))
    at_line_ends(right, labels)
    return figure


@styled
def energy_histograms(results: Results, arrays: Arrays) -> Figure | None:
    """The distribution of KPE over samples: one panel per schedule, base in grey behind each."""
    found = {}
    for row in of_kind(results, "base", "schedule", "field"):
        values = np.asarray(arrays.get(f"kpe/{row.name}", []), dtype=float).ravel()
        if np.isfinite(values).any():
            found[row.name] = values[np.isfinite(values)]
    rows = [row for row in results.rows if row.name in found]
    if not rows:
        return None
    base = base_row(results)
    everything = np.concatenate(list(found.values()))
    lo, hi = np.quantile(everything, [0.002, 0.998])
    bins = np.linspace(lo, hi if hi > lo else lo + 1, 31)
    figure, grid = panels(len(rows), min(4, len(rows)), 1.55, 0.5, sharex=True, sharey=True)
    tint, places = colours(results), decimals([hi], 3)
    for axes, row in zip(grid.flat, rows):
        values = found[row.name]
        axes.set_title(title(row), color=tint[row.name])
        axes.grid(False)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        if base is not None and base.name in found:
            axes.hist(found[base.name], bins, density=True, color=lighter(INK, 0.86))
        axes.hist(values, bins, density=True, histtype="step", color=tint[row.name], linewidth=1.5)
        middle = float(np.median(values))
        axes.axvline(middle, color=tint[row.name], linewidth=1.0, linestyle=(0, (2, 1.6)))
        axes.annotate(
            f"median {number(middle, places)}",
            (0.99, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=8,
            color=MUTED,
        )
    figure.supxlabel("kinetic path energy per sample", fontsize=9)
    return figure


@styled
def training_curves(results: Results, arrays: Arrays) -> Figure | None:
    """What validation saw during training: copies, Fréchet distance, energy, loss."""
    steps, series = results.train.steps, results.train.series
    key = quality_key(results)
    wanted = [("f_mem", "F_mem, %", 100.0), ("kpe_mean", "KPE, mean", 1.0), ("loss", "loss", 1.0)]
    if key is not None:
        wanted.insert(1, (key, quality_label(results), 1.0))
    shown = [(words, lines) for name, words, scale in wanted if (lines := _lines(steps, series, name, scale))]
    if not shown:
        return None
    figure, grid = panels(len(shown), min(2, len(shown)) if len(shown) != 3 else 3, 2.35, 0.3)
    tint = colours(results)
    for axes, (words, lines) in zip(grid.flat, shown):
        axes.set(title=words, xlabel="training step")
        for name, (at, values) in lines.items():
            colour = tint.get(name.removeprefix("val/").split("/")[0], INK if name.startswith("val/") else FAINT)
            axes.plot(at, values, color=colour, marker="o", markersize=2.5, label=name)
        if len(lines) > 1 or words == "loss":
            axes.legend()
        axes.margins(y=0.1)
    return figure


def _lines(steps, series: Mapping, name: str, scale: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The series whose last part is ``name``, without their gaps."""
    found = {}
    for key, values in series.items():
        if key.rsplit("/", 1)[-1] != name:
            continue
        pairs = [(at, scale * value) for at, raw in zip(steps, values) if (value := finite(raw)) is not None]
        if len(pairs) > 1:
            at, kept = np.asarray(pairs, dtype=float).T
            found[key] = (at, kept)
    return found


@styled
def thresholds(results: Results, arrays: Arrays) -> Figure | None:
    """F_mem at every threshold that was measured: base's share, and the schedules' change from it in points."""
    base = base_row(results)
    if base is None:
        return None
    levels = _by_threshold({name: metric(base, name) for name in base.metrics})
    schedules = of_kind(results, "schedule")
    changes = [(row, _by_threshold({name: change.value for name, change in row.vs_base.items()})) for row in schedules]
    changes = [(row, found) for row, found in changes if len(found) > 1]
    if len(levels) < 2 or not changes:
        return None
    figure = new_figure(WIDTH, 3.4, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    tint = colours(results)
    grid = list(levels)
    left.set_title("plain sampling")
    left.plot(grid, list(levels.values()), color=tint[base.name], marker="o", markersize=4)
    right.set_title("change from it, points")
    right.axhline(0, color=tint[base.name], linewidth=1.2)
    labels = []
    for row, found in changes:
        right.plot(list(found), list(found.values()), color=tint[row.name], zorder=3)
        at, last = list(found.items())[-1]
        labels.append(Label(at, last, title(row), tint[row.name]))
    used = results.threshold
    for axes in (left, right):
        axes.set_xlabel("a copy is d1 / d2 below …")
        axes.set_xticks(grid)
        if used:
            axes.axvline(used, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
    left.set_ylabel("F_mem, %")
    right.set_xlim(grid[0], grid[-1])
    at_line_ends(right, labels)
    return figure


def _by_threshold(numbers: Mapping[str, Any]) -> dict[float, float]:
    """Threshold -> percent of the numbers called ``f_mem_at_THRESHOLD``, ascending."""
    found = {name.removeprefix("f_mem_at_"): value for name, value in numbers.items() if name.startswith("f_mem_at_")}
    return {float(at): 100 * value for at, value in sorted(found.items()) if finite(value) is not None}
