"""Copying over training: what the validations logged of plain sampling, and when copying began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fm_lightning.diagnosis.answer import Answer
from fm_lightning.diagnosis.association.statistic import vectors
from fm_lightning.errors import UserError
from fm_lightning.phrases import thousands

LEVEL = 0.01  # of F_mem
WANTED = ("f_mem", "f_mem_lo", "f_mem_hi", "kpe_mean", "kpe_early_mean", "kpe_late_mean")
PREFIX = "val/base/"

Series = Mapping[str, Sequence[tuple[int, float]]]


def over_training(series: Series, seeds: int) -> Answer:
    """F_mem, early and late KPE and the distance to real images at each validation.

    Args:
        series: name -> (step, value) ascending, as ``metrics.csv`` has them.
        seeds: samples of each validation.
    """
    answer = Answer()
    found = {name.removeprefix(PREFIX): points for name, points in series.items() if name.startswith(PREFIX)}
    distances = [name for name in found if name == "fid" or (name.startswith("fd_") and "change" not in name)]
    kept = [name for name in (*WANTED, *distances[:1]) if name in found]
    for name in kept:
        answer.arrays[f"series/{name}"] = np.array(found[name], dtype=np.float64)
    answer.numbers |= {"distance": next(iter(distances), None), "n": seeds}
    if "f_mem" not in kept:
        answer.numbers["missing"] = "no validation logged F_mem of plain sampling"
        answer.sentences.append("Nothing over training: no validation logged F_mem of plain sampling.")
        return answer
    steps, values = zip(*found["f_mem"])
    passage = first_passage(steps, values, LEVEL)
    answer.numbers["first_passage"] = passage
    where = f"{len(steps)} validation{'s' * (len(steps) > 1)} of {thousands(seeds)} samples"
    if passage.step is None:
        answer.sentences.append(
            f"F_mem never reached 1% in training ({where}, the last at step {thousands(steps[-1])})."
        )
    elif passage.before is None:
        answer.sentences.append(
            f"F_mem was at or above 1% at the first validation already, step {thousands(round(passage.step))} ({where})."
        )
    else:
        answer.sentences.append(
            f"F_mem first passed 1% between the steps {thousands(round(passage.before))} and "
            f"{thousands(round(passage.step))} ({where})."
        )
    return answer


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
