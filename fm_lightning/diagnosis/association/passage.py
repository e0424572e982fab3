"""When a series first passes a level, for example F_mem 1% over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fm_lightning.diagnosis.association.estimate import vectors
from fm_lightning.errors import UserError


@dataclass(frozen=True)
class Passage:
    """The first recorded step at or above a level; it was passed after ``before``.

    Attributes:
        step: None if the series never gets there.
        before: the recorded step before, or None if the series starts at or above the level.
    """

    step: float | None
    before: float | None


def first_passage(steps: Any, values: Any, level: float) -> Passage:
    """Where ``values [n]``, recorded at ascending ``steps [n]``, are first at or above ``level``.

    Raises:
        UserError: counts that differ, or steps that do not ascend.
    """
    steps, values = vectors(steps=steps, values=values)
    if (np.diff(steps) <= 0).any():
        raise UserError("The steps do not ascend.", "Sort them, each once.")
    there = values >= level
    if not there.any():
        return Passage(None, float(steps[-1]))
    i = int(there.argmax())
    return Passage(float(steps[i]), float(steps[i - 1]) if i else None)
