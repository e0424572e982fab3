"""Statistic: a number with its interval and its test, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fm_lightning.errors import UserError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A number from n samples with its 95% interval.

    Attributes:
        value: None where it is undefined; never NaN.
        low, high: None where there is no interval.
        p: of the test of the null hypothesis that the method names, or None.
        n: samples behind it.
        method: how number, interval and test were found.
        reason: why value or interval are missing; empty where both are there.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    method: str = ""
    reason: str = ""


def undefined(reason: str, n: int, method: str) -> Statistic:
    """An Statistic without a number."""
    return Statistic(None, n=n, method=method, reason=reason)


def vectors(**given: Any) -> list[Vector]:
    """One float64 vector ``[n]`` for each argument (tensor, array, list of numbers or bools).

    Raises:
        UserError: other shapes, counts that differ, no samples, or a value that is not finite (it is named).
    """
    found = []
    for name, values in given.items():
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise UserError(
                f"{name} has shape {list(array.shape)} and type {array.dtype}.", "Pass one number per sample."
            )
        array = array.astype(np.float64)
        bad = ~np.isfinite(array)
        if bad.any():
            raise UserError(
                f"{name}[{int(bad.argmax())}] is {array[bad][0]:g}.", "Leave out samples that are not finite."
            )
        found.append(array)
    counts = {name: len(array) for name, array in zip(given, found)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} of {n}" for name, n in counts.items())
        raise UserError(f"The samples differ in number: {listed}.", "Pass vectors of one length.")
    if not found[0].size:
        raise UserError(f"There are no samples in {' and '.join(given)}.", "Pass at least one.")
    return found


def constant(**given: Vector) -> str:
    """Which of the vectors are constant, in words; empty if none is."""
    names = [name for name, values in given.items() if (values == values[0]).all()]
    return f"constant {' and '.join(names)}" if names else ""
