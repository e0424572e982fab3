"""Figures on energy and copying."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fm_lightning.phrases import thousands
from fm_lightning.report.diagnosis.density import ENERGY_WORDS
from fm_lightning.report.diagnosis.semantics import show
from fm_lightning.report.dots import dots, name_rows
from fm_lightning.report.results import Arrays, Numbers
from fm_lightning.report.style import COPY, FAINT, INK, MUTED, PALETTE, WIDTH, new_figure, styled

LINES = {
    "network": ("network, its own way", INK, "-"),
    "closed form along the network's way": ("closed form, the network's way", PALETTE[1], "-"),
    "closed form along its own way": ("closed form, its own way", PALETTE[2], "-"),
    "closed form on held-out bridges": ("closed form, held-out bridges", PALETTE[1], (0, (2, 1.6))),
}


@styled
def goldilocks(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """F_mem in quantile groups of each energy, with Wilson's intervals."""
    curves = {name: found for name, found in numbers["curves"].items() if "curve" in found}
    if not curves:
        return None
    figure = new_figure(WIDTH, 2.6, layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(panels, curves.items()):
        curve = {key: np.array(values, dtype=float) for key, values in found["curve"].items()}
        x, share = np.arange(1, len(curve["n"]) + 1), 100 * curve["share"]
        reach = [share - 100 * curve["low"], 100 * curve["high"] - share]
        axes.errorbar(x, share, np.maximum(reach, 0), color=PALETTE[0], marker="o", markersize=4.5, linewidth=1.3)
        p = found["test"]["p"]
        axes.set_title(ENERGY_WORDS[name])
        axes.set_xlabel("quantile group\n" + ("shape untested" if p is None else f"not monotone:\np = {p:.3f}"))
        axes.set_xticks(x)
    panels[0].set_ylabel("F_mem, %")
    panels[0].set_ylim(bottom=0)
    return figure


@styled
def predictors(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """AUROC of each predictor of copying."""
    found = {name: entry["auroc"] for name, entry in numbers["predictors"].items()}
    if all(estimate["value"] is None for estimate in found.values()):
        return None
    figure = new_figure(WIDTH * 0.8, 0.3 * len(found) + 0.8, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.5, color=MUTED, linewidth=0.9, zorder=0.5)
    dots(axes, list(found.values()), PALETTE[0])
    name_rows(
        axes, [f"{ENERGY_WORDS.get(name, name)} (n = {thousands(estimate['n'])})" for name, estimate in found.items()]
    )
    axes.set(xlim=(0, 1), xlabel="AUROC for copies; below 0.5, low values go with copying")
    return figure


@styled
def commitment(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """When trajectories commit to their final nearest training image: copies and others."""
    times = arrays.get("commitment/time")
    if times is None or not len(times):
        return None
    flags = arrays["commitment/copied"]
    figure = new_figure(WIDTH * 0.62, 2.8, layout="constrained")
    axes = figure.subplots()
    for part, colour, name in ((times[flags], COPY, "copies"), (times[~flags], INK, "other samples")):
        if len(part):
            ordered = np.sort(part)
            share = 100 * np.arange(1, len(part) + 1) / len(part)
            axes.step(
                np.r_[0, ordered, 1],
                np.r_[0, share, 100],
                where="post",
                color=colour,
                label=f"{name} (n = {thousands(len(part))})",
            )
    axes.set(xlabel="time t, noise to data", ylabel="% committed", xlim=(0, 1), ylim=(0, 101))
    axes.legend(loc="upper left")
    return figure


@styled
def power(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """Mean power of network and closed form over time, and over 1 - t on logarithmic axes."""
    if "power/network" not in arrays:
        return None
    figure = new_figure(WIDTH, 3.7, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (label, colour, dashes) in LINES.items():
        values, times = arrays.get(f"power/{name}"), arrays.get(f"times/{name}")
        if values is None or times is None:
            continue
        left.plot(times, values, color=colour, linestyle=dashes, label=label)
        inside = (times < 1) & (values > 0)
        right.loglog(1 - times[inside], values[inside], color=colour, linestyle=dashes)
    ends = arrays["power/network"]
    left.set(
        xlabel="time t, noise to data", ylabel="power ½‖v‖², mean", xlim=(0, 1), ylim=(0, 2.5 * float(np.max(ends)))
    )
    right.set(xlabel="1 − t, data to the left")
    for axis in (right.xaxis, right.yaxis):  # powers of ten would need mathematical text
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    gap = np.array([0.2, 0.02])
    right.loglog(gap, float(ends.mean()) * (gap / 0.2) ** -2, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
    right.annotate("(1 − t)⁻²", (gap[1], float(ends.mean()) * 100), color=MUTED, fontsize=8.5)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def originals(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """The surest copies above their training images; of 2-D data all samples over the training points."""
    samples = arrays.get("copies/samples")
    if samples is not None:
        side = WIDTH / max(len(samples), 6)
        figure = new_figure(side * len(samples), 2 * (side + 0.3), layout="constrained")
        for axes, images, name in zip(
            figure.subplots(2, 1), (samples, arrays["copies/originals"]), ("samples", "training images")
        ):
            show(axes, images)
            axes.set_title(name)
        return figure
    points = arrays.get("points/samples")
    if points is None:
        return None
    figure = new_figure(WIDTH * 0.62, WIDTH * 0.55, layout="constrained")
    axes = figure.subplots()
    training, flags = arrays["points/training"], arrays["points/copied"]
    axes.plot(*training.T, "o", color=FAINT, markersize=5, markerfacecolor="none", label="training points")
    axes.plot(*points[~flags].T, ".", color=INK, markersize=2.5, label="samples")
    axes.plot(*points[flags].T, ".", color=COPY, markersize=2.5, label="copies")
    axes.set_aspect("equal")
    axes.legend(loc="best")
    return figure


@styled
def copy_measures(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """Each measure of copying (filled) and its held-out floor (hollow), one panel per unit."""
    measures = [entry for entry in numbers["measures"].values() if "value" in entry]
    units = [u for u in ("share", "percent", "z") if any(entry["unit"] == u for entry in measures)]
    if not units:
        return None
    groups = [[entry for entry in measures if entry["unit"] == unit] for unit in units]
    heights = [len(group) + 1 for group in groups]
    figure = new_figure(WIDTH * 0.75, 0.36 * sum(heights) + 0.9, layout="constrained")
    panels = figure.subplots(len(units), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, unit, group in zip(panels, units, groups):
        scale = 100 if unit == "share" else 1
        for key, colour, shift, hollow, label in (
            ("value", PALETTE[1], 0.1, False, "samples"),
            ("floor", INK, -0.14, True, "held-out real images"),
        ):
            estimates = [
                {name: scale * v for name, v in (entry[key] or {}).items() if v is not None} for entry in group
            ]
            dots(axes, estimates, colour, shift, hollow, label)
        name_rows(axes, [entry["label"] for entry in group])
        axes.set_xlabel(
            {"share": "copies, %", "percent": "% authentic: low is copying", "z": "C_T: below 0 is copying"}[unit]
        )
    panels[0].legend(loc="best")
    return figure


@styled
def training(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """F_mem, early and late KPE and the distance to real images at each validation."""
    series = {key.removeprefix("series/"): values for key, values in arrays.items()}
    if "f_mem" not in series or len(series["f_mem"]) < 2:
        return None
    distance = numbers.get("distance")
    panels = [name for name in ("f_mem", "kpe", distance) if name == "kpe" or name in series]
    figure = new_figure(WIDTH, 2.7, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(panels)), panels):
        if name == "f_mem":
            steps, values = series["f_mem"].T
            axes.plot(steps, 100 * values, color=COPY, marker="o", markersize=3.5)
            if {"f_mem_lo", "f_mem_hi"} <= series.keys():
                low, high = (100 * series[key][:, 1] for key in ("f_mem_lo", "f_mem_hi"))
                axes.fill_between(steps, low, high, color=COPY, alpha=0.2, linewidth=0)
            axes.axhline(1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_title("F_mem, % (dashed: 1%)")
        elif name == "kpe":
            for key, colour, label in (("kpe_early_mean", PALETTE[0], "early"), ("kpe_late_mean", PALETTE[1], "late")):
                if key in series:
                    axes.plot(*series[key].T, color=colour, marker="o", markersize=3.5, label=label)
            axes.set_title("KPE, mean")
            axes.legend()
        else:
            axes.plot(*series[name].T, color=INK, marker="o", markersize=3.5)
            axes.set_title(f"distance to real images, {name}")
        axes.set_xlabel("training step")
    return figure
