"""Every figure of the report, in the order in which the page shows them.

Each is a function of ``(results, arrays)`` (see ``results``) that returns a matplotlib ``Figure``, or None
where what it shows was not saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fm_lightning.report.curves import (
    energy_histograms,
    energy_profile,
    gain_curves,
    thresholds,
    training_curves,
)
from fm_lightning.report.forest import change_forest
from fm_lightning.report.results import Arrays, Results, of_kind
from fm_lightning.report.samples import most_copied, sample_grid, sample_scatter
from fm_lightning.report.scatter import against_controls, quality_memorization

__all__ = [
    "FIGURES",
    "Plate",
    "against_controls",
    "change_forest",
    "energy_histograms",
    "energy_profile",
    "gain_curves",
    "most_copied",
    "quality_memorization",
    "sample_grid",
    "sample_scatter",
    "thresholds",
    "training_curves",
]


@dataclass(frozen=True)
class Plate:
    """A figure's place on the page: how it is drawn, what it is called, how to read it."""

    key: str
    title: str
    caption: str
    draw: Callable[[Results, Arrays], Figure | None]
    pixels: bool = False  # PNG instead of SVG
    folded: bool = False  # shown on a click


def _control_samples(results: Results, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    names = [row["name"] for row in of_kind(results, "control", "floor")]
    draw = sample_scatter if "training/points" in arrays else sample_grid
    return draw(results, arrays, names) if names else None


FIGURES = (
    Plate(
        "change",
        "What each schedule changes, and what its controls change",
        "Change against plain sampling on the same seeds, with its 95 % interval. Below a schedule "
        "stand its controls: sampling without the idea, matched in one side effect each. The band "
        "carries the schedule's interval down to them: a control whose interval reaches it changes "
        "about as much. The verdict rests on the paired difference between schedule and control, not on "
        "the eye.",
        change_forest,
    ),
    Plate(
        "against",
        "Each schedule minus each of its controls",
        "Paired differences on the same seeds, with their 95 % intervals. Only in the shaded corner is "
        "the schedule better at both; a cross that touches an axis cannot be told from its control in "
        "that measure. On the other diagonal one measure is bought with the other.",
        against_controls,
    ),
    Plate(
        "quality",
        "Quality against memorization",
        "Towards the lower left samples are nearer to real data and fewer of them are copies. Thin "
        "lines join a schedule to its controls. Bars are 95 % intervals of the share of copies of each "
        "row on its own: they are much wider than those of the paired changes above, so judge "
        "differences there. A lower share at unchanged quality is worth little where added noise buys "
        "it too.",
        quality_memorization,
    ),
    Plate(
        "samples",
        "Samples and the training images nearest to them",
        "Above, samples; below each, the training image that it is nearest to, and the ratio of the "
        "distances to the nearest and the second nearest. A red frame marks a copy: a ratio below the "
        "threshold. A column is one seed, so read downwards to see what a schedule does to the same "
        "sample. The first seeds are shown, none are picked.",
        sample_grid,
        pixels=True,
    ),
    Plate(
        "toy",
        "Samples over the training points",
        "Filled dots are copies: much nearer to one training point than to any other.",
        sample_scatter,
        pixels=True,
    ),
    Plate(
        "control_samples",
        "The same seeds under the controls, and the floors",
        "As above, for controls and floors.",
        _control_samples,
        pixels=True,
        folded=True,
    ),
    Plate(
        "most_copied",
        "The training images copied most",
        "How many samples of each schedule copy each image. A darker cell is a higher count.",
        most_copied,
        pixels=True,
    ),
    Plate(
        "thresholds",
        "Memorization at other thresholds",
        "A copy is a sample whose nearest training image is closer than the second nearest by this "
        "factor. A schedule that un-copies lowers the share at every threshold and more than noise of "
        "the same size (dotted) does; one that only pushes samples across the line follows its noise.",
        thresholds,
    ),
    Plate(
        "gains",
        "Gain curves",
        "Left, what the velocity is multiplied by. Right, how far the displacement runs ahead of the "
        "clock that the network is told; a curve that ends below zero stops short of the data and "
        "leaves noise in the sample.",
        gain_curves,
    ),
    Plate(
        "energy",
        "Energy along the way",
        "Left, the kinetic power that samples spend at each time; its integral is KPE. Right, each "
        "schedule's power against that of plain sampling at the same time: the square of the gain, and "
        "what the changed path adds to it.",
        energy_profile,
    ),
    Plate(
        "kpe",
        "Kinetic path energy over samples",
        "One panel per schedule; plain sampling lies in grey behind each. Dotted lines are medians.",
        energy_histograms,
    ),
    Plate(
        "training",
        "Along training",
        "What each validation found, on validation seeds and with fewer samples than the comparison above.",
        training_curves,
    ),
)
