"""Averages of the weights over training by a power function, and any length of average from their snapshots.

The average at step t weighs the weights at step s by ``s^gamma``; its standard deviation is a fixed share ``sigma_rel``
of the training so far. Two such averages, saved now and then, give any other one afterwards: the combination whose
weighting of the steps is closest to the wanted one (Karras et al. 2024, arXiv 2312.02696, section 3 and appendix C).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_lightning.errors import UserError

LONGEST = 1 / math.sqrt(12)  # sigma_rel of the plain mean over all steps, gamma = 0


def exponent(sigma_rel: float) -> float:
    """Returns gamma of the average whose standard deviation is ``sigma_rel`` of the training (their eq. 126).

    Raises:
        UserError: ``sigma_rel`` is not in (0, 0.288].
    """
    if not 0 < sigma_rel <= LONGEST:
        raise UserError(
            f"`sigma_rel={sigma_rel:g}` is no length of an average: 0.288 is the mean over the whole training.",
            "Choose a number above 0 and at most 0.288.",
        )
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def keeps(step: int, gamma: float) -> float:
    """Returns the share of the former average that stays after optimizer step ``step`` (from 1)."""
    return (1 - 1 / step) ** (gamma + 1)


def coefficients(steps: Sequence[float], gammas: Sequence[float], step: float, gamma: float) -> NDArray[np.float64]:
    """Returns ``[n]`` factors, which sum to 1, with which n snapshots add up to the average of exponent ``gamma`` at ``step``.

    Least squares between the weightings of the steps, as in their eq. 165; that the factors sum to 1 is added here, so
    that weights which never changed stay as they are.

    Args:
        steps: training steps at which the snapshots were saved, ``[n]``.
        gammas: exponents of the snapshots' averages, ``[n]``.
        step: end of the wanted average.
        gamma: exponent of the wanted average.
    """
    t, g = np.asarray(steps, dtype=np.float64), np.asarray(gammas, dtype=np.float64)
    n = len(t)
    system, wanted = np.ones((n + 1, n + 1)), np.ones(n + 1)
    system[n, n] = 0  # the last row and column hold the multiplier of the sum
    system[:n, :n] = _overlap(t[:, None], g[:, None], t[None], g[None])
    wanted[:n] = _overlap(t, g, float(step), float(gamma))
    return np.linalg.solve(system, wanted)[:n].astype(np.float64)


def _overlap(ta: NDArray, ga: NDArray, tb: NDArray | float, gb: NDArray | float) -> NDArray[np.float64]:
    """Inner products of two weightings of the steps, each of which integrates to 1."""
    later = np.maximum(ta, tb)
    ratio = np.exp(np.where(ta < tb, gb, -ga) * np.log(ta / tb))
    return (ga + 1) * (gb + 1) * ratio / ((ga + gb + 1) * later)


def combine(states: Sequence[Mapping[str, Tensor]], factors: Sequence[float]) -> dict[str, Tensor]:
    """Returns the weighted sum of n state dicts, computed in float64; whole numbers come from the last one."""
    summed = dict(states[-1])
    for name, last in states[-1].items():
        if last.is_floating_point():
            total = torch.zeros_like(last, dtype=torch.float64)
            for state, factor in zip(states, factors, strict=True):
                total.add_(state[name].to(torch.float64), alpha=float(factor))
            summed[name] = total.to(last.dtype)
    return summed
