"""Intervals for shares and for paired differences."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.stats import binomtest, norm
from torch import Tensor

from fm_lightning.errors import OldError

LEVEL = 0.95
_Z = float(norm.ppf((1 + LEVEL) / 2))


class Change(NamedTuple):
    """A paired difference with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies wholly on one side of zero, else 0."""
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


class Influence(NamedTuple):
    """A number with what each sample contributes to it, to first order.

    Attributes:
        value: the number.
        contributions: ``[n]`` float64, of mean 0; the number's standard error is their spread over the root of n.
    """

    value: float
    contributions: Tensor


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (nan, nan) for n = 0."""
    if n == 0:
        return math.nan, math.nan
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def paired_share_change(after: Tensor, before: Tensor) -> Change:
    """Change of a share between two conditions over the same seeds, ``[n]`` bool each.

    Only the discordant seeds speak (McNemar). The interval is the adjusted Wald interval of Agresti and Min (2005), which
    adds half a seed to each of the four cells and so keeps its coverage where few seeds are discordant.
    """
    _same_length(after, before)
    n = len(after)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    b, c, m = gained + 0.5, lost + 0.5, n + 2
    centre = (b - c) / m
    half = _Z * math.sqrt(b + c - (b - c) ** 2 / m) / m
    return Change((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half))


def paired_mean_change(here: Influence, there: Influence) -> Change:
    """The number here minus the number there, line by line of the same seed, with the normal interval."""
    _same_length(here.contributions, there.contributions)
    difference, value = here.contributions - there.contributions, here.value - there.value
    half = _Z * float(difference.std()) / math.sqrt(len(difference))
    return Change(value, value - half, value + half)


def _same_length(a: Tensor, b: Tensor) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise OldError(
            f"a paired change of {len(a)} and {len(b)} samples asked for",
            "the same seeds on both sides, at least one",
            "sample the same seeds under both conditions",
        )
