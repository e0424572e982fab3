"""When a curve over the training steps passes a level, reaches its best, or leaves its plateau.

Between two validations curves are interpolated in the logarithm of the step. A curve that never passes has no time: nothing
is extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fm_lightning.estimate import Z
from fm_lightning.study.curves import Curve, Floats

SHARE = 0.1  # of copies among the samples: tau_mem is when F_mem passes it
MARGIN = 0.1  # relative: tau_gen is when the distance is within it of its best
PLATEAU = 3  # validations
LEAVES = 3.0  # times the noise
BEST_LAST, TOO_FEW = "best at the last validation", "too few validations after tau_gen"


@dataclass(frozen=True)
class Time:
    """A training step, interpolated.

    Attributes:
        step: None where the curve never gets there.
        note: what limits the number, in words; empty where nothing does.
    """

    step: float | None
    note: str = ""


def passage(steps: Floats, values: Floats, level: float) -> Time:
    """The first step at which ``values`` reach ``level`` from below; validations without a value are left out."""
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    above = np.flatnonzero(values >= level)
    if not len(above):
        return Time(None, "never")
    i = int(above[0])
    if i == 0:
        return Time(float(steps[0]), "at or before the first validation")
    rise = (level - values[i - 1]) / (values[i] - values[i - 1])
    log = math.log(steps[i - 1]) + rise * (math.log(steps[i]) - math.log(steps[i - 1]))
    return Time(math.exp(log))


def value_at(steps: Floats, values: Floats, step: float) -> float:
    """A curve's value at a step, interpolated in the logarithm of the step."""
    known = np.isfinite(values)
    return float(np.interp(math.log(step), np.log(steps[known]), values[known])) if known.any() else math.nan


def tau_mem(curve: Curve, share: float = SHARE) -> Time:
    """When F_mem passes ``share``."""
    return passage(curve.steps, curve.get("f_mem"), share)


def best(curve: Curve) -> int:
    """The place of the validation with the smallest distance."""
    assert curve.distance is not None
    return int(np.nanargmin(curve.get(curve.distance)))


def tau_gen(curve: Curve, margin: float = MARGIN) -> Time:
    """When the distance is first within a margin of its best: ``margin`` of the best, or two standard errors if larger."""
    if curve.distance is None:
        return Time(None, "no unbiased distance was measured")
    i, distance = best(curve), curve.get(curve.distance)
    error = (curve.get(f"{curve.distance}_hi")[i] - curve.get(f"{curve.distance}_lo")[i]) / (2 * Z)
    level = distance[i] + max(margin * abs(distance[i]), 2 * error if np.isfinite(error) else 0.0)
    found = passage(curve.steps, -distance, -level)
    return Time(found.step, BEST_LAST if i == len(distance) - 1 else found.note)


def departure(curve: Curve, name: str, after: float) -> Time:
    """When a quantity leaves its plateau by more than its noise.

    The plateau is its first three validations at or after ``after`` (tau_gen): there the samples are good, and a model that
    only generalizes better changes little. It has left where it differs from their mean by more than three times the noise,
    and does so on the same side at the next validation, too. The noise is the largest of their standard deviation, of the
    scatter of the whole curve about its own trend, and of the standard error of one value. The last validation has no next
    one, so nothing departs there.
    """
    values = curve.get(name)
    places = np.flatnonzero((curve.steps >= after * (1 - 1e-9)) & np.isfinite(values))
    if not np.isfinite(values).any():
        return Time(None, "not measured")
    if len(places) <= PLATEAU:
        return Time(None, TOO_FEW)
    plateau, rest = values[places[:PLATEAU]], places[PLATEAU:]
    noise = max(float(plateau.std(ddof=1)), _scatter(values[places]), _error(curve, name, places[:PLATEAU]))
    change = values[rest] - plateau.mean()
    side = np.sign(change) * (np.abs(change) > LEAVES * noise)
    away = (side[:-1] != 0) & (side[:-1] == side[1:])
    return Time(float(curve.steps[rest[int(np.argmax(away))]])) if away.any() else Time(None, "never")


def _scatter(values: Floats) -> float:
    """The standard deviation of values about a smooth trend: three of them cannot tell it, the whole curve can.

    Second differences of independent values have the variance 6; their median is not moved by a few jumps.
    """
    second = np.abs(np.diff(values, 2))
    return float(np.median(second)) / (0.6745 * math.sqrt(6)) if len(second) else 0.0


def _error(curve: Curve, name: str, places: np.ndarray) -> float:
    """The standard error of one value on the plateau, where its interval is known; 0 elsewhere."""
    low, high = curve.get(f"{name}_lo")[places], curve.get(f"{name}_hi")[places]
    found = (high - low) / (2 * Z)
    return float(found.mean()) if np.isfinite(found).all() else 0.0
