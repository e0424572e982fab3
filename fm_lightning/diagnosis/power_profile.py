"""Power over time: of one field along another's states, with the bridge's density and the 1 / (1 - t) law.

The power of a field is ``1/2 ||v(x, t)||^2``. Near ``t = 1`` the closed-form velocity points from x to a training image x_i with
``v = (x_i - x) / (1 - t)``. At states that do not move along with it the distance stays, and the power grows like
``(1 - t)^-2``; along its own trajectories the distance shrinks like ``1 - t``, and the power reaches a plateau.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import linregress
from torch import Tensor

from fm_lightning.diagnosis.association.statistic import Statistic, undefined, vectors
from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.metrics.neighbours.kernel import log_kernel_sum
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.phrases import counted

Velocity = Callable[..., Tensor]
WINDOW = (0.8, 0.99)  # times in which power towards t = 1 is fitted


class PowerProbe:
    """Power of another field at the states of an integration: the closed form's along the network's way, or the other way round.

        probe = PowerProbe(EmpiricalVelocity(data))
        integrate(network, x0, schedule, probe=probe)
        probe.power    # [S, B]

    Args:
        velocity: the other field; None is the one integrated.
    """

    def __init__(self, velocity: Velocity | None = None) -> None:
        self.velocity = velocity
        self._times: list[float] = []
        self._power: list[Tensor] = []

    def __call__(self, i: int, t: float, x: Tensor, v: Tensor) -> None:
        """What ``integrate`` calls at each step."""
        if self.velocity is not None:
            v = self.velocity(x, x.new_full((1,), t).expand(len(x)))
        self._times.append(t)
        self._power.append(power(v))

    @property
    def times(self) -> Tensor:
        """``[S]`` float64, the steps' left edges."""
        return torch.tensor(self._times, dtype=torch.float64)

    @property
    def power(self) -> Tensor:
        """``[S, B]``.

        Raises:
            UserError: nothing was integrated.
        """
        if not self._power:
            raise UserError("The probe has seen no step.", "Pass it to integrate as probe=.")
        return torch.stack(self._power)


def power(v: Tensor) -> Tensor:
    """``[B]`` ``1/2 ||v||^2`` over all dimensions of ``v [B, ...]``, float64."""
    return v.flatten(1).double().square().sum(1) / 2


@torch.no_grad()
def bridge_power(velocity: Velocity, x0: Tensor, x1: Tensor, times: Tensor) -> Tensor:
    """``[T, B]`` power of a field on bridges ``x_t = (1 - t) x0 + t x1``, which do not follow it.

    Args:
        x0, x1: ``[B, ...]`` noise and data; with held-out data the closed form's power shows its 1 / (1 - t)^2.
        times: ``[T]`` in [0, 1).
    """
    if len(x0) != len(x1):
        raise UserError(f"Cannot pair {len(x0)} noises with {len(x1)} samples.", "Pass equally many of both.")
    states = ((float(t), torch.lerp(x0, x1, float(t))) for t in times)
    return torch.stack([power(velocity(x, x.new_full((1,), t).expand(len(x)))) for t, x in states])


def bridge_log_density(x: Tensor, t: float, data: Tensor | Reference) -> Tensor:
    """``[B]`` log density of ``x_t = (1 - t) x0 + t x1`` at ``x [B, ...]``: ``log 1/N sum_n N(x; t x_n, (1 - t)^2 I)``, float64.

    Args:
        t: in [0, 1).
        data: ``[N, ...]`` the training images, or a ``Reference`` of them.

    Raises:
        UserError: t out of range.
    """
    if not 0 <= t < 1:
        raise UserError(f"The bridge has no density at t={t:g}.", "Use a t from 0 to below 1.")
    reference = data if isinstance(data, Reference) else Reference(data)
    size = reference.size
    constant = size / 2 * math.log(2 * math.pi * (1 - t) ** 2)
    if t == 0:
        return -x.flatten(1).double().square().sum(1) / 2 - constant
    # As a kernel about x / t, whose sums are streamed over the data as they are.
    sums = log_kernel_sum(x.double() / t, reference, (1 - t) / t)
    return sums - math.log(len(reference)) - constant


@dataclass(frozen=True)
class PowerLaw:
    """How mean power behaves towards t = 1.

    Attributes:
        exponent: slope of log power over ``log(1 - t)``: -2 off the closed form's trajectories, 0 on a plateau; with the
            regression's 95% interval, which takes the times as independent.
        plateau: mean power in the window.
        spread: largest over smallest mean power in it.
    """

    exponent: Statistic
    plateau: float
    spread: float | None


def power_law(times: Tensor, powers: Tensor) -> PowerLaw:
    """Fits mean power ``[T]`` (or ``[T, B]``, averaged over samples) at ``times [T]`` within ``WINDOW``.

    Raises:
        UserError: counts that differ, or fewer than 3 times in the window.
    """
    mean = powers.double().mean(1) if powers.ndim == 2 else powers
    t, p = vectors(times=times, powers=mean)
    since, until = WINDOW
    # Times such as 0.8 come as products of 1 / N.
    inside = (t >= since - 1e-9) & (t <= until + 1e-9)
    if inside.sum() < 3:
        raise UserError(
            f"Cannot fit a law to {counted(int(inside.sum()), 'step')} between t = {since:g} and {until:g}.",
            "Take more steps.",
        )
    t, p = t[inside], p[inside]
    plateau, n, method = float(p.mean()), len(t), "least squares of log power over log(1 - t)"
    if (p <= 0).any():
        return PowerLaw(undefined("no power at some time: it has no logarithm", n, method), plateau, None)
    fit = linregress(np.log1p(-t), np.log(p))
    slope, low, high = Estimate(float(fit.slope), float(fit.stderr))
    exponent = Statistic(slope, low, high, float(fit.pvalue), n, method)
    return PowerLaw(exponent, plateau, float(p.max() / p.min()))
