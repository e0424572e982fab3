"""Figures on energy and semantics."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fm_lightning.phrases import finite, number, thousands, true_minus, with_span
from fm_lightning.report.results import Arrays, Numbers
from fm_lightning.report.style import INK, PALETTE, WIDTH, new_figure, styled


@styled
def thirds(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """Mean score and margin in the thirds of KPE, with 95% intervals."""
    panels = [
        (key, found) for key, judge in numbers.items() if isinstance(judge, dict) for found in judge["columns"].values()
    ]
    if not panels:
        return None
    figure = new_figure(WIDTH * min(1.0, 0.4 * len(panels)), 3.0, layout="constrained")
    for axes, (key, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for place, group in enumerate(found["means"]):
            if finite(group["low"]) is not None:
                axes.plot([place, place], [group["low"], group["high"]], color=INK, linewidth=1.6)
            axes.plot(place, group["value"], "o", color=PALETTE[0], markersize=7)
        g = found["effect"]
        said = with_span(g["value"], g["low"], g["high"], number) if g["value"] is not None else "undefined"
        axes.set_title(f"{key}: {found['words']}")
        axes.set_xlabel(f"third of KPE within classes\nhigh minus low: g = {true_minus(said)}")
        axes.set_xticks(
            [0, 1, 2], [f"{w}\nn = {thousands(m['n'])}" for w, m in zip(("low", "middle", "high"), found["means"])]
        )
        axes.set_xlim(-0.5, 2.5)
        axes.grid(axis="x", visible=False)
    return figure


@styled
def extremes(numbers: Numbers, arrays: Arrays) -> Figure | None:
    """The samples of the lowest and of the highest KPE."""
    strips = [(f"{key} KPE", arrays[key]) for key in ("lowest", "highest") if key in arrays and arrays[key].ndim == 4]
    if not strips:
        return None
    across = max(len(images) for _, images in strips)
    side = WIDTH / across
    figure = new_figure(WIDTH, len(strips) * (side + 0.3), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(strips), 1, squeeze=False)[:, 0], strips):
        show(axes, images)
        axes.set_title(name)
    return figure


def show(axes, images: np.ndarray) -> None:
    """Images ``[k, H, W, C]`` uint8 side by side."""
    gap = max(1, images.shape[2] // 12)
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    strip = np.concatenate(list(padded), axis=1)[:, :-gap]
    axes.imshow(np.repeat(strip, 3, 2) if strip.shape[2] == 1 else strip, interpolation="nearest")
    axes.set_axis_off()
