"""Every figure of the report, in the order in which the page shows them.

Each is a function of ``(results, arrays)`` (see ``results``) that returns a matplotlib ``Figure``, or None
where what it shows was not saved.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from fm_lightning.report.curves import energy_histograms, energy_profile, gain_curves, thresholds, training_curves
from fm_lightning.report.forest import change_forest
from fm_lightning.report.frontier import frontier
from fm_lightning.report.loss_over_time import loss_over_time
from fm_lightning.report.results import Arrays, Results, of_kind
from fm_lightning.report.samples import is_toy, most_copied, sample_grid, sample_scatter
from fm_lightning.report.scatter import quality_memorization
from fm_lightning.report.style import Plate


def _control_samples(results: Results, arrays: Arrays) -> Figure | None:
    names = [row.name for row in of_kind(results, "control", "floor")]
    draw = sample_scatter if is_toy(arrays) else sample_grid
    return draw(results, arrays, names) if names else None


FIGURES = (
    Plate(
        "frontier",
        "Judged schedules and trivial manipulations",
        "Fewer copies to the left, nearer to real data downwards. Each line is one trivial manipulation at growing dose: "
        "the parabola through three doses is drawn solid, and thin back to plain sampling. The box is the margin, the "
        "smallest effect that matters. A schedule is better than a manipulation only if the line passes above the whole "
        "box, by more than chance; a line that meets the box or passes below it leaves no room for that claim.",
        frontier,
    ),
    Plate(
        "change",
        "What each schedule changes",
        "Change against plain sampling on the same seeds, with its 95% interval. Triangles are the schedule's step sizes "
        "with the true clock: what its discretisation alone does.",
        change_forest,
    ),
    Plate(
        "quality",
        "Quality against memorization",
        "Towards the lower left samples are nearer to real data and fewer of them are copies. Bars are the 95% intervals of "
        "each row's share of copies on its own, much wider than those of the paired changes above: judge differences there.",
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
        "The same seeds under the controls, and real data",
        "As above, for the true clock of each schedule, held-out real data and training data.",
        _control_samples,
        pixels=True,
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
        "A copy is a sample whose nearest training image is closer than the second nearest by this factor. A schedule that "
        "un-copies lowers the share at every threshold; one that only pushes samples across the line, near that line alone.",
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
    Plate(
        "loss",
        "The loss over time",
        "The closed form knows every training sample: its loss on them is the smallest possible. The Gaussian knows their "
        "mean and covariance alone: a network worth its parameters lies below it on held-out samples. (With fewer samples "
        "than dimensions that covariance is singular, and its loss on held-out samples grows without end.) Where the two lines "
        "of the network part, it knows its training samples. Bands are 95% intervals; all lines rest on the same noise.",
        loss_over_time,
    ),
)
