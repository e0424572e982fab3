"""Figures on energy and density."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fm_lightning.phrases import finite, number, thousands, true_minus, with_span
from fm_lightning.report.dots import dots, name_rows
from fm_lightning.report.results import Arrays, Numbers
from fm_lightning.report.style import INK, MUTED, PALETTE, WIDTH, new_figure, panels, styled

ENERGY_WORDS = {
    "kpe": "KPE",
    "early": "early KPE",
    "late": "late KPE",
    "displacement": "displacement",
    "excess": "excess",
}
POINTS = 4000  # drawn of a scatter: more hide each other


def _measures(numbers: Numbers) -> list[str]:
    """Those that are drawn, in order: one of each kind."""
    names = dict.fromkeys(entry["measure"] for entry in numbers["associations"])
    return [name for name in names if not name.startswith("knn_20")]


def title_of(measure: str) -> str:
    """``support, training images\n(model space)``."""
    column, _, rest = measure.partition(", ")
    if not rest:
        return measure
    reference, space = rest.split(", ")
    kind = f"{column[4:]}-neighbour support" if column.startswith("knn_") else "kernel log density"
    return f"{kind}\n{reference}, {space}"


@styled
def scatters(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """KPE of each sample against measures of density, with Spearman's rho."""
    names = [name for name in _measures(numbers) if not name.startswith("kde_")][:6]
    if not names:
        return None
    across = 2 if len(names) in (2, 4) else min(3, len(names))
    figure, grid = panels(len(names), across, 2.7, 0.2)
    kpe = arrays["energy/kpe"]
    rhos = {e["measure"]: e["plain"] for e in numbers["associations"] if e["energy"] == "kpe"}
    for axes, name in zip(grid.flat, names):
        values = arrays[f"measure/{name}"]
        x, y = values[:POINTS], kpe[: len(values)][:POINTS]
        kept = np.isfinite(x)
        axes.plot(
            x[kept], y[kept], ".", color=PALETTE[0], markersize=4.5, alpha=0.5, markeredgewidth=0, rasterized=True
        )
        rho = rhos[name]
        words = with_span(rho["value"], rho["low"], rho["high"], number) if rho["value"] is not None else "undefined"
        axes.set_title(
            true_minus(f"ρ = {words}, n = {thousands(rho['n'])}"), fontsize=8.5, fontweight="normal", color=INK
        )
        axes.set_xlabel(title_of(name))
    for axes in grid[:, 0]:
        axes.set_ylabel("KPE per sample")
    return figure


@styled
def forest(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """Plain (filled) and partial (hollow) rank correlations of every energy with every measure."""
    names = _measures(numbers)
    if not names:
        return None
    entries = numbers["associations"]
    figure = new_figure(WIDTH, 0.33 * len(names) + 1.3, layout="constrained")
    panels = figure.subplots(1, len(ENERGY_WORDS), sharey=True, sharex=True)
    for axes, (energy, words) in zip(panels, ENERGY_WORDS.items()):
        mine = {e["measure"]: e for e in entries if e["energy"] == energy}
        dots(axes, [mine[name]["plain"] for name in names], shift=0.12, label="plain")
        dots(axes, [mine[name]["partial"] for name in names], PALETTE[1], -0.16, hollow=True, label="given covariates")
        axes.axvline(0, color=MUTED, linewidth=0.9, zorder=0.5)
        axes.set_title(words)
    name_rows(panels[0], [title_of(name).replace("\n", ", ") for name in names])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    panels[len(panels) // 2].set_xlabel("Spearman's rho")
    return figure


@styled
def bridge(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """Rank correlation of the network's power with the bridge's log density at the same state, over time."""
    points = [
        (p["t"], *(finite(p["rho"][key]) for key in ("value", "low", "high")))
        for p in numbers.get("power_and_bridge", [])
        if finite(p["rho"]["value"]) is not None and finite(p["rho"]["low"]) is not None
    ]
    if len(points) < 2:
        return None
    t, value, low, high = np.array(points, dtype=float).T
    figure = new_figure(WIDTH * 0.62, 3.0, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(t, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
    axes.plot(t, value, color=PALETTE[0], marker="o", markersize=3)
    axes.axhline(0, color=MUTED, linewidth=0.9)
    axes.set(xlabel="time t, noise to data", ylabel="Spearman's rho", xlim=(0, 1), ylim=(-1, 1))
    return figure
