"""Choosing the doses at which a family is compared with a schedule.

On calibration seeds the family is sampled at a few doses, chosen by bisection (``next_doses``). Where its memorized share M,
made monotone, takes the values ``M_S + D``, ``M_S`` and ``M_S - D`` about the schedule's own M_S (``choose_doses``), there it is
sampled on test seeds, which played no part in the choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from fm_lightning.errors import UserError

CALIBRATION_SEEDS = 500  # at least
SPACING = 0.06  # of M: closer points know the curve's slope too badly, wider ones its curvature
TURN = 3.0  # standard errors beyond which M is believed to have turned round
WIDEST = 3.0  # times D: a wider bracket is halved

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Doses = tuple[float, float, float]  # ascending


def spacing(memorized: float, standard_error: float) -> float:
    """``D = max(6 points, 4 paired standard errors)``, at most 0.6 M_S and 0.6 (1 - M_S)."""
    return min(max(SPACING, 4 * standard_error), 0.6 * memorized, 0.6 * (1 - memorized))


def paired_spacing(calibrated: Mapping[float, Bools], schedule: Bools, test_seeds: int) -> float:
    """D for a schedule: the paired error is that against the dose that copies as much, or nearly so."""
    target = float(np.mean(schedule))
    nearest = min(calibrated.values(), key=lambda hits: abs(float(np.mean(hits)) - target))
    difference = np.asarray(schedule, dtype=float) - np.asarray(nearest, dtype=float)
    return spacing(target, float(np.std(difference)) / math.sqrt(test_seeds))


def next_doses(
    calibrated: Mapping[float, Bools], schedule: Bools, test_seeds: int, ladder: Sequence[float]
) -> list[float]:
    """Returns the doses to sample next on calibration seeds; none once doses can be chosen, or where none reaches the schedule.

    The ladder's middle and last dose come first; then the bracket in which the family's memorized share M passes the schedule's
    is halved until M changes by at most ``3 D`` across it (``spacing``) or no dose lies between its ends. Ladder and rule depend
    on nothing else, so that schedules meet at the same doses, in any order in which they are added.

    Args:
        calibrated: dose -> ``[n]`` which calibration seeds gave copies; 0 (the baseline) among them.
        schedule: ``[n]`` the same for the schedule.
        test_seeds: number of seeds of the comparison.
        ladder: the doses that may be sampled, ascending from 0: those that exist, or a fine subdivision of the range.
    """
    if len(calibrated) < 3:
        return [dose for dose in (ladder[len(ladder) // 2], ladder[-1]) if dose not in calibrated]
    target, distance = float(np.mean(schedule)), paired_spacing(calibrated, schedule, test_seeds)
    rungs, found = np.asarray(ladder, dtype=float), []
    for doses, curve in monotone_curves(calibrated):
        if not reaches(doses, curve, target, distance):
            continue
        above = np.flatnonzero(curve >= min(target, curve.max()))
        i = min(int(above[-1]), len(doses) - 2) if curve[-1] < curve[0] else max(int(above[0]) - 1, 0)
        between = rungs[(rungs > doses[i] + 1e-12) & (rungs < doses[i + 1] - 1e-12)]
        if len(between) and abs(curve[i] - curve[i + 1]) > WIDEST * distance:
            found.append(float(between[len(between) // 2]))
    return found


def choose_doses(
    calibrated: Mapping[float, Bools], schedule: Bools, test_seeds: int, existing: Sequence[float] | None = None
) -> list[Doses]:
    """Three doses for each place where the family's curve reaches the schedule's memorized share.

    The baseline, dose 0, replaces doses below 0. The doses are kept half of D apart in M, so where base stands in, the
    middle one may lie beyond the schedule.

    Args:
        calibrated: dose -> ``[n]`` which calibration seeds gave copies; 0 (base) and at least two more, see ``next_doses``.
        schedule: ``[n]`` the same for the schedule.
        test_seeds: the number of seeds of the comparison.
        existing: the doses to choose from, ascending from 0 (``Family.ladder``); None for any number.

    Returns:
        ascending doses, one triple for a curve that falls, several where it turns round (``TURN`` standard errors); empty
        where it does not reach the schedule.

    Raises:
        UserError: fewer than 500 calibration seeds, or no base among the doses.
    """
    doses, hits = _table(calibrated)
    n = hits.shape[1]
    if n < CALIBRATION_SEEDS:
        raise UserError(
            f"{n:,} calibration seeds are too few to choose doses.", f"Sample at least {CALIBRATION_SEEDS}."
        )
    if len(doses) < 3 or doses[0] != 0 or len(schedule) != n:
        raise UserError(
            "Doses can only be chosen from dose 0 and at least two more, measured on the same seeds as the schedule.",
            f"Add what is missing to the doses {doses.tolist()}.",
        )
    target, distance = float(np.mean(schedule)), paired_spacing(calibrated, schedule, test_seeds)
    chosen = []
    for run, curve in monotone_curves(calibrated):
        three = _invert(run, curve, target, distance)
        if three is not None and existing is not None:
            three = _to_existing(three, [dose for dose in existing if dose <= doses[-1] + 1e-12])
        if three is not None:
            chosen.append(three)
    return chosen


def monotone_curves(calibrated: Mapping[float, Bools]) -> list[tuple[Floats, Floats]]:
    """Ascending doses and M made monotone, ``[k]`` each, for every part of the curve between two turns."""
    doses, hits = _table(calibrated)
    found = []
    for run in _monotone_runs(hits):
        part, memorized = slice(run.start, run.stop), hits[run.start : run.stop].mean(1)
        found.append((doses[part], isotonic_regression(memorized, increasing=bool(memorized[-1] >= memorized[0])).x))
    return found


def reaches(doses: Floats, curve: Floats, target: float, distance: float) -> bool:
    """Whether a monotone part of the curve takes the value ``target``; from the baseline it may begin ``distance`` below."""
    top, bottom = float(curve.max()), float(curve.min())
    from_base = curve[-1] < curve[0] and doses[0] == 0
    return top - bottom > 1e-9 and bottom <= target <= top + (distance if from_base else 0.0)


def _table(calibrated: Mapping[float, Bools]) -> tuple[Floats, Bools]:
    """Ascending doses ``[k]`` and their copies ``[k, n]``."""
    doses = sorted(calibrated)
    return np.array(doses, dtype=float), np.stack([np.asarray(calibrated[dose], dtype=bool) for dose in doses])


def _monotone_runs(hits: Bools) -> list[range]:
    """Doses ``[k, n]`` split where M turns round by more than noise; neighbouring runs share the turning point."""
    values, turns, extreme, falling = hits.mean(1), [0], 0, True
    for k in range(1, len(hits)):
        if (values[k] < values[extreme]) == falling:
            extreme = k
            continue
        step = hits[k].astype(float) - hits[extreme]
        if abs(step.mean()) > TURN * step.std() / math.sqrt(len(step)):
            if extreme > turns[-1]:
                turns.append(extreme)
            extreme, falling = k, not falling
    return [range(a, b + 1) for a, b in zip(turns, [*turns[1:], len(hits) - 1])]


def _invert(doses: Floats, curve: Floats, target: float, distance: float) -> Doses | None:
    """Ascending doses for ``target + distance``, ``target`` and ``target - distance``; None where the curve misses it."""
    if not reaches(doses, curve, target, distance):
        return None
    top, bottom = float(curve.max()), float(curve.min())
    high, low = min(target + distance, top), max(target - distance, bottom)
    apart = min(distance, high - low) / 2
    middle = min(max(target, low + apart), high - apart)
    fine = np.linspace(doses[0], doses[-1], 4001)
    values = PchipInterpolator(doses, curve)(fine)  # monotone where the data are
    if curve[-1] < curve[0]:
        fine, values = fine[::-1], values[::-1]
    found = sorted(float(dose) for dose in np.interp([low, middle, high], values, fine))
    return None if found[0] == found[1] or found[1] == found[2] else (found[0], found[1], found[2])


def _to_existing(doses: Doses, existing: Sequence[float]) -> Doses | None:
    """The nearest doses that exist: three different ones, the outer ones on both sides of the middle one that is wanted."""
    if len(existing) < 3:
        return None
    known = np.asarray(existing, dtype=float)
    first, second, third = (int(np.abs(known - dose).argmin()) for dose in doses)
    first = min(first, int(np.searchsorted(known, doses[1], "right")) - 1)
    third = max(third, int(np.searchsorted(known, doses[1], "left")))
    second = max(second, first + 1)
    third = min(max(third, second + 1), len(known) - 1)
    second = min(second, third - 1)
    first = min(first, second - 1)
    return float(known[first]), float(known[second]), float(known[third])
