"""Families that change the weights: training stopped earlier, and longer averages of the weights.

They are the strongest trivial alternatives to a schedule, and lie outside the sampler. Both need files that training kept
(``callbacks.CheckpointSeries``, ``callbacks.PowerAverages``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from fm_lightning.adapters.kept_weights import SharedNetwork, StoredWeights, averaged_weights, earlier_weights
from fm_lightning.comparison.families import AVERAGE, EARLIER_CHECKPOINT, WEIGHT_FAMILIES, Family
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.flow import Schedule
from fm_lightning.flow.velocity import Velocity

LENGTHS = (0.05, 0.08, 0.12, 0.18, 0.25)  # sigma_rel of the averages on which the curve is calibrated
COARSE = 5  # earlier checkpoints on which the curve is calibrated


class WeightFamilies(NamedTuple):
    """The families that a run's files allow, and of the others why they cannot be tested."""

    families: Sequence[Family]
    missing: dict[str, str]


NO_WEIGHTS = WeightFamilies(
    (), dict.fromkeys(WEIGHT_FAMILIES, "there is no training whose earlier weights or averages could be taken")
)


def weight_families(
    folder: str | Path, step: int, net: nn.Module, guided: Callable[[nn.Module], Velocity] = lambda net: net
) -> WeightFamilies:
    """Returns the families of weights that were kept in a run's directory.

    Args:
        folder: the run's directory.
        step: training step of the weights that are compared.
        net: the network, whose shape the files must have; one copy of it takes on the weights in turn.
        guided: network -> the velocity that is sampled.
    """
    shared, found, missing = SharedNetwork(net), [], {}

    def row(base: Schedule, weights: StoredWeights, note: str) -> Row:
        stored = StoredVelocity(weights.content, lambda: guided(shared.holding(weights)))
        return Row("family", base, velocity=stored, content=weights.content, note=note)

    earlier = {
        1 - at / step: (at, weights) for at, weights in sorted(earlier_weights(Path(folder), step).items())[::-1]
    }
    if len(earlier) >= 3:
        doses = list(earlier)

        def checkpoint(base: Schedule, dose: float) -> Row:
            at, weights = earlier[min(doses, key=lambda known: abs(known - dose))]
            return row(base, weights, f"{EARLIER_CHECKPOINT}, step {at:,}")

        coarse = [doses[i] for i in np.unique(np.linspace(0, len(doses) - 1, COARSE).round().astype(int))]
        found.append(Family(EARLIER_CHECKPOINT, checkpoint, tuple(coarse), existing=lambda base: (0.0, *doses)))
    else:
        missing[EARLIER_CHECKPOINT] = "training kept no earlier checkpoints (callbacks.CheckpointSeries keeps them)"
    average = averaged_weights(Path(folder), step)
    if average is not None:

        def longer(base: Schedule, dose: float) -> Row:
            return row(base, average(dose), f"{AVERAGE} of {dose:.3g} of the training")

        found.append(Family(AVERAGE, longer, LENGTHS))
    else:
        missing[AVERAGE] = "training kept no averages of the weights (callbacks.PowerAverages keeps them)"
    return WeightFamilies(found, missing)
