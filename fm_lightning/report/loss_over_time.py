"""The loss in bins of t: read from a run's directory, and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fm_lightning.files import DamagedFile, read_json
from fm_lightning.report.results import Arrays, Results
from fm_lightning.report.style import INK, MUTED, PALETTE, WIDTH, new_figure, plain_ticks, styled

FILE = "loss_over_time.json"
_PREFIX = "loss_over_time/"
# field/side -> (label, colour, dashes)
_CURVES = {
    "network/train": ("network, training samples", INK, "-"),
    "network/held_out": ("network, held-out samples", PALETTE[1], "-"),
    "closed_form/train": ("closed form, training samples", MUTED, (0, (2, 1.6))),
    "gaussian/train": ("Gaussian, training samples", PALETTE[0], (0, (5, 2))),
    "gaussian/held_out": ("Gaussian, held-out samples", PALETTE[5], (0, (5, 2))),
}


def read_loss_over_time(run_dir: str | Path) -> dict[str, np.ndarray]:
    """What a run's latest measurement left: ``loss_over_time/edges`` and per curve ``[3, bins]``, value, low and high."""
    try:
        kept = read_json(Path(run_dir) / FILE)
    except (FileNotFoundError, DamagedFile):  # one more validation writes it again
        return {}
    found = {f"{_PREFIX}edges": np.asarray(kept["edges"])}
    for name, curve in kept["curves"].items():
        found[_PREFIX + name] = np.asarray([curve["value"], curve["low"], curve["high"]], dtype=float)
    return found


@styled
def loss_over_time(results: Results, arrays: Arrays) -> Figure | None:
    """The loss over t of the network, the closed form and the Gaussian."""
    edges = arrays.get(f"{_PREFIX}edges")
    curves = {name: arrays[_PREFIX + name] for name in _CURVES if _PREFIX + name in arrays}
    if edges is None or not curves:
        return None
    figure = new_figure(WIDTH, 3.8, layout="constrained")
    axes = figure.subplots()
    middle = (edges[1:] + edges[:-1]) / 2
    # Below the smallest loss of a network there is only the closed form, which falls to 0.
    seen = np.concatenate([values[0] for name, values in curves.items() if not name.startswith("closed_form")])
    floor = 0.3 * float(seen[seen > 0].min()) if (seen > 0).any() else 1e-6
    for name, (value, low, high) in curves.items():
        label, colour, dashes = _CURVES[name]
        axes.plot(middle, np.maximum(value, floor), color=colour, linestyle=dashes, label=label)
        if name.startswith("network"):
            axes.fill_between(middle, np.maximum(low, floor), np.maximum(high, floor), color=colour, alpha=0.18, lw=0)
    axes.set(yscale="log", xlabel="time t, noise to data", ylabel="loss per dimension", xlim=(0, 1))
    axes.set_ylim(bottom=floor)
    plain_ticks(axes.yaxis)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
