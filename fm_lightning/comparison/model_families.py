"""Families of a model: training stopped earlier, longer averages of the weights, less guidance.

They are the strongest trivial alternatives to a schedule, and lie outside the sampler. The first two need files that training
kept (``callbacks.CheckpointSeries``, ``callbacks.PowerAverages``), the last one a network with a null label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from fm_lightning.adapters.kept_weights import SharedNetwork, StoredWeights, averaged_weights, earlier_weights
from fm_lightning.comparison.families import (
    AVERAGE,
    EARLIER_CHECKPOINT,
    LEAST_GUIDANCE,
    Family,
    less_guidance,
)
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.flow import Schedule
from fm_lightning.guidance import Guidance

LENGTHS = (0.05, 0.08, 0.12, 0.18, 0.25)  # sigma_rel of the averages on which the curve is calibrated
COARSE = 5  # earlier checkpoints on which the curve is calibrated


class ModelFamilies(NamedTuple):
    """The families that a model allows, and of the others why they cannot be tested."""

    families: Sequence[Family]
    missing: dict[str, str]


NO_TRAINING = "there is no training whose earlier weights or averages could be taken"
NO_FURTHER = ModelFamilies((), dict.fromkeys((EARLIER_CHECKPOINT, AVERAGE), NO_TRAINING))


def model_families(folder: str | Path, step: int | None, net: nn.Module, guidance: Guidance) -> ModelFamilies:
    """Returns the families of a network and of the weights that were kept in a run's directory.

    Args:
        folder: the run's directory.
        step: training step of the weights that are compared; None if they were not trained there.
        net: the network, whose shape the files must have; one copy of it takes on the weights in turn.
        guidance: with which it is sampled.
    """
    found: list[Family] = []
    missing = {}
    if getattr(net, "null_label", None) is not None and guidance.scale > LEAST_GUIDANCE:
        found.append(less_guidance(guidance))
    if not step:
        return ModelFamilies(found, dict(NO_FURTHER.missing))
    shared = SharedNetwork(net)

    def row(base: Schedule, weights: StoredWeights, note: str) -> Row:
        stored = StoredVelocity(weights.content, lambda: guidance.of(shared.holding(weights)))
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
    return ModelFamilies(found, missing)
