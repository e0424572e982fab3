"""Families of a model: training stopped earlier, longer averages of the weights, less guidance.

They are the strongest trivial alternatives to a schedule, and lie outside the sampler. The first two need files that training
kept (``callbacks.CheckpointSeries``, ``callbacks.PowerAverages``), the last one a network with a null label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from fm_lightning.adapters.kept_weights import (
    SharedNetwork,
    StoredWeights,
    averaged_weights,
    earlier_weights,
    rates_decay,
)
from fm_lightning.comparison.families import AVERAGE, EARLIER_CHECKPOINT, Family, Which, asks_all
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.data.samples import Samples
from fm_lightning.flow import Schedule
from fm_lightning.flow.velocity import guidable

LENGTHS = (0.05, 0.08, 0.12, 0.18, 0.25)  # sigma_rel of the averages on which the curve is calibrated
DECAYED = (
    "the learning rate decayed, so these checkpoints understate what a shorter training with its own decay does "
    '(the family "other model" compares with such runs)'
)


class ModelFamilies(NamedTuple):
    """The families that a model allows, and of the others why they cannot be tested."""

    families: Sequence[Family]
    missing: dict[str, str]
    guidable: bool = False  # the network has a null label

    def unavailable(self, which: Which) -> dict[str, str]:
        """The missing families among those that ``which`` asks for, with the reason."""
        return {name: reason for name, reason in self.missing.items() if asks_all(which) or name in which}


NO_TRAINING = "there is no training whose earlier weights or averages could be taken"
NO_FURTHER = ModelFamilies((), dict.fromkeys((EARLIER_CHECKPOINT, AVERAGE), NO_TRAINING))


def model_families(folder: str | Path, step: int | None, net: nn.Module, data: Samples) -> ModelFamilies:
    """Returns the families of a network and of the weights that were kept in a run's directory.

    Args:
        folder: the run's directory.
        step: training step of the weights that are compared; None if they were not trained there.
        net: the network, whose shape the files must have; one copy of it takes on the weights in turn.
        data: which the weights must have been trained on.

    Raises:
        UserError: a file of another network, of other data, or of another step than its name says.
    """
    found: list[Family] = []
    missing = {}
    if not step:
        return NO_FURTHER._replace(guidable=guidable(net))
    shared = SharedNetwork(net)

    def row(base: Schedule, weights: StoredWeights, note: str) -> Row:
        stored = StoredVelocity(weights.content, lambda device: shared.holding(weights))
        return Row("family", base, velocity=stored, content=weights.content, note=note)

    trained_on = data.fingerprint if data.has_training_data else None
    kept = earlier_weights(Path(folder), step, net, trained_on)
    earlier = {1 - at / step: (at, weights) for at, weights in sorted(kept.items())[::-1]}
    if len(earlier) >= 3:
        doses = list(earlier)

        def checkpoint(base: Schedule, dose: float) -> Row:
            at, weights = earlier[min(doses, key=lambda known: abs(known - dose))]
            return row(base, weights, f"{EARLIER_CHECKPOINT}, step {at:,}")

        caution = DECAYED if rates_decay(kept) else ""
        exist = (0.0, *doses)
        found.append(Family(EARLIER_CHECKPOINT, checkpoint, tuple(doses), existing=lambda base: exist, caution=caution))
    else:
        missing[EARLIER_CHECKPOINT] = "training kept no earlier checkpoints (callbacks.CheckpointSeries keeps them)"
    average = averaged_weights(Path(folder), step, net, trained_on)
    if average is not None:

        def longer(base: Schedule, dose: float) -> Row:
            return row(base, average(dose), f"{AVERAGE} of {dose:.3g} of the training")

        # Of shorter ones the snapshots know nothing: they would be differences of large multiples of these.
        found.append(Family(AVERAGE, longer, LENGTHS, least=LENGTHS[0]))
    else:
        missing[AVERAGE] = "training kept no averages of the weights (callbacks.PowerAverages keeps them)"
    return ModelFamilies(found, missing, guidable(net))
