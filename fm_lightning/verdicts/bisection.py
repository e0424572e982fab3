"""Calibration by bisection: which doses of a family are sampled on calibration seeds, one after the other.

A family offers a ladder of doses: those that exist (checkpoints, whole steps), or a fine subdivision of its range. The middle
and the last one come first; then the bracket in which the family's memorized share M passes the schedule's is halved until M
changes by at most ``3 D`` across it (D is ``doses.spacing``) or no dose lies between its ends. Ladder and rule depend on
nothing else, so that schedules meet at the same doses, in any order in which they are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fm_lightning.verdicts.doses import Bools, monotone_curves, paired_spacing, reaches

WIDEST = 3.0  # times D: a wider bracket is halved


def next_doses(
    calibrated: Mapping[float, Bools], schedule: Bools, test_seeds: int, ladder: Sequence[float]
) -> list[float]:
    """Returns the doses to sample next; none once doses can be chosen, or where the family does not reach the schedule.

    Args:
        calibrated: dose -> ``[n]`` which calibration seeds gave copies; 0 (the baseline) among them.
        schedule: ``[n]`` the same for the schedule.
        test_seeds: number of seeds of the comparison.
        ladder: the doses that may be sampled, ascending from 0.
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
