"""The figures of a study: curves over the training steps, and times over the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_lightning.report.style import FAINT, INK, MUTED, PALETTE, WIDTH, Plate, new_figure, plain_ticks, styled
from fm_lightning.study.axes import SEED
from fm_lightning.study.curves import Curve

Study = Mapping[str, Any]
LABELS = {
    "f_mem": "F_mem, %",
    "quality_frechet": "Fréchet distance, extrapolated",
    "quality_kernel": "kernel distance",
    "kpe": "KPE, mean",
    "kpe_late": "late KPE, mean",
    "loss_gap": "loss gap, held-out minus training",
}


def _panels(study: Study) -> list[tuple[str, set[str]]]:
    """(title, names of its runs) of a panel for each combination of the axes other than images and seed."""
    others = [axis for axis in study["axes"] if axis not in (SEED, study["images"])]
    found: dict[str, set[str]] = {}
    for run in study["runs"]:
        title = ", ".join(f"{study['short'][axis]} {run['values'][axis]}" for axis in others) or "all runs"
        found.setdefault(title, set()).add(run["name"])
    return list(found.items())


def _colours(study: Study) -> dict[Any, str]:
    values = study["axes"][study["images"]] if study["images"] else [None]
    return {value: PALETTE[i % len(PALETTE)] for i, value in enumerate(values)}


@styled
def series(
    study: Study, curves: Sequence[Curve], name: str | None, scale: float = 1.0, per_image: bool = False
) -> Figure | None:
    """One of ``LABELS`` over the training steps, a line per run; by default the distance that the study measured."""
    name = name or study["distance"]
    if name is None:
        return None
    shown = [curve for curve in curves if np.isfinite(curve.get(name)).sum() > 1]
    if not shown or (per_image and not study["images"]):
        return None
    panels, tint = _panels(study), _colours(study)
    figure = new_figure(WIDTH, 3.6, layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
        axes.set(title=title, xscale="log", xlabel="training steps per image" if per_image else "training steps")
        for curve in (curve for curve in shown if curve.name in names):
            value = curve.values.get(study["images"])
            x = curve.steps / float(value) if per_image and value else curve.steps
            axes.plot(x, scale * curve.get(name), color=tint[value], linewidth=1.1, alpha=0.85)
        plain_ticks(axes.xaxis)
        if name == "f_mem":
            axes.axhline(scale * study["share"], color=FAINT, linestyle=(0, (4, 3)), linewidth=1.0)
    first = figure.axes[0]
    first.set_ylabel(LABELS[name])
    _legend(figure.axes[-1], study, tint)
    return figure


def _legend(axes: Axes, study: Study, tint: Mapping[Any, str]) -> None:
    if study["images"]:
        for value, colour in tint.items():
            axes.plot([], [], color=colour, label=f"{study['short'][study['images']]} {value}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


@styled
def times(study: Study, curves: Sequence[Curve]) -> Figure | None:
    """tau_gen and tau_mem over the number of images, with a line of slope 1 to compare with."""
    images = study["images"]
    if images is None or len(study["axes"][images]) < 2:
        return None
    panels = _panels(study)
    figure = new_figure(WIDTH, 3.8, layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
        axes.set(title=title, xscale="log", yscale="log", xlabel="training images n")
        runs = [run for run in study["runs"] if run["name"] in names]
        for key, colour, label in (("tau_gen", PALETTE[2], "τ_gen"), ("tau_mem", PALETTE[1], "τ_mem")):
            points = [(run["values"][images], run[key]) for run in runs if run[key] is not None]
            if points:
                axes.plot(*zip(*points), "o", color=colour, markersize=4, label=label)
        passed = [(run["values"][images], run["tau_mem"]) for run in runs if run["tau_mem"]]
        if passed:
            x0, y0 = np.exp(np.log(passed).mean(0))
            x = np.array(sorted(study["axes"][images]), dtype=float)
            axes.plot(x, y0 * x / x0, color=FAINT, linestyle=(0, (4, 3)), label="slope 1")
        never = [(run["values"][images], run["last_step"]) for run in runs if run["tau_mem"] is None]
        if never:
            axes.plot(*zip(*never), "^", color=MUTED, markerfacecolor="white", label="not passed by the last step")
        plain_ticks(axes.yaxis)
        axes.set_xticks(study["axes"][images], [str(v) for v in study["axes"][images]])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("training steps", color=INK)
    figure.axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


FIGURES = (
    Plate(
        "copies",
        "When copies appear",
        "F_mem at each validation; one line per run. The dashed line is the share of τ_mem.",
        partial(series, name="f_mem", scale=100),
    ),
    Plate(
        "collapse",
        "The same over steps per image",
        "Where τ_mem is proportional to n, the lines lie on each other.",
        partial(series, name="f_mem", scale=100, per_image=True),
    ),
    Plate(
        "times",
        "τ_gen and τ_mem over the number of images",
        "Between the two lies the training that is good and copies little. A triangle is a run that never passes.",
        times,
    ),
    Plate(
        "distance",
        "The distance to unseen real images",
        "Unbiased at the seeds used; lower is better.",
        partial(series, name=None),
    ),
    Plate(
        "late",
        "Late kinetic path energy",
        "From the split time on: whether it changes before F_mem does.",
        partial(series, name="kpe_late"),
    ),
    Plate(
        "gap",
        "The loss gap",
        "Held-out minus training loss at the same noise and times, averaged over t.",
        partial(series, name="loss_gap"),
    ),
)
