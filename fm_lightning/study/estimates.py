"""Numbers over training seeds, and how they depend on an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

LEAST = 3  # points of an exponent
Number = dict[str, Any]  # value, low, high, count


def mean(values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)) -> Number | None:
    """The mean over seeds with Student's 95% interval, cut to ``within``; no interval for one seed, None for none."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    value, low, high = float(found.mean()), None, None
    if len(found) > 1:
        half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
        low, high = max(within[0], value - half), min(within[1], value + half)
    return {"value": value, "low": low, "high": high, "count": len(found)}


def geometric_mean(values: Sequence[float]) -> Number | None:
    """The mean of logarithms, as a factor: for times, whose errors are relative."""
    found = mean([math.log(value) for value in values])
    if found is None:
        return None
    return found | {key: None if found[key] is None else math.exp(found[key]) for key in ("value", "low", "high")}


def exponent(at: Mapping[float, Sequence[float]]) -> tuple[Number | None, str]:
    """b in ``time = a * x^b``, from the mean logarithm over seeds at each x, with Student's 95% interval; and a note.

    The line is fitted to one point per x, so that its residuals hold the variation over seeds and the deviation from a power
    law alike.

    Args:
        at: x -> the times of the seeds there; none where a time does not exist.
    """
    points = [(math.log(x), float(np.log(times).mean())) for x, times in sorted(at.items()) if len(times)]
    if len(points) < LEAST:
        return None, f"{len(points)} points; an exponent needs {LEAST}"
    x, y = np.array(points).T
    slope, start = np.polyfit(x, y, 1)
    rest = y - (start + slope * x)
    error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    half = float(t.ppf(0.975, len(x) - 2)) * error
    found = {"value": float(slope), "low": float(slope - half), "high": float(slope + half), "count": len(points)}
    return found, ""


def largest_factor(at: Mapping[float, Sequence[float]], power: float = 0.0) -> float | None:
    """The factor between the largest and the smallest mean time over x, of ``time / x^power``; None for one point."""
    means = [float(np.log(times).mean()) - power * math.log(x) for x, times in at.items() if len(times)]
    return math.exp(max(means) - min(means)) if len(means) > 1 else None
