"""Solvers: explicit Runge-Kutta methods with fixed steps, as Butcher tableaux, and adaptive ones.

A Butcher tableau is the only thing in which Euler, midpoint, Heun and RK4 differ; ``Step`` takes the stages of any of them.
``adaptive.py`` integrates with an adaptive solver.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fm_lightning.guidance import Guidance


@dataclass(frozen=True)
class Solver(ABC):
    """A method, and what a schedule must know of it.

    Attributes:
        name: what a configuration calls it.
        fixed_steps: whether the grid alone decides where it evaluates. Otherwise the samples do, and what one sample
            becomes depends, within the tolerance, on the others in its batch.
    """

    name: str
    fixed_steps: ClassVar[bool]

    @abstractmethod
    def times(self, edges: Tensor) -> Tensor:
        """``[n]`` times at which the gain may be evaluated on a grid ``[S + 1]``."""

    @abstractmethod
    def advances(self, gain: Callable[[Tensor], Tensor], edges: Tensor) -> Tensor:
        """``[S]`` the integral of the gain over each step of a grid ``[S + 1]``, as the method sums it; float64."""


@dataclass(frozen=True)
class Tableau(Solver):
    """``k_s = f(t + c_s dt, x + dt sum_j a_sj k_j)``, then ``x + dt sum_s b_s k_s``."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    fixed_steps: ClassVar[bool] = True

    def stages(self, t: float, end: float) -> list[float]:
        """The times of the stages of a step from t to end."""
        # A stage at the end of a step is at the next edge itself, not at t + dt, which rounding may push past it.
        return [end if c == 1 else t + c * (end - t) for c in self.c]

    def times(self, edges: Tensor) -> Tensor:
        ends = itertools.pairwise(edges.tolist())
        return torch.tensor([time for t, end in ends for time in self.stages(t, end)], dtype=torch.float64)

    def advances(self, gain: Callable[[Tensor], Tensor], edges: Tensor) -> Tensor:
        eta = iter(gain(self.times(edges)).tolist())
        ends = itertools.pairwise(edges.tolist())
        sums = [(end - t) * sum(b * next(eta) for b in self.b) for t, end in ends]
        return torch.tensor(sums, dtype=torch.float64)


@dataclass(frozen=True)
class Step:
    """All that decides where a step leads from a given state; equal steps from equal states need one computation."""

    t: float
    dt: float
    tableau: Tableau
    gains: tuple[float, ...]  # eta at each stage
    told: tuple[float, ...]  # the time that the network is told at each stage
    noise: float = 0.0  # standard deviation of the noise put into the state before the step
    guidance: tuple[Guidance | None, ...] = ()  # at each stage; empty where the velocity is taken as it is
    drift: tuple[tuple[float, float], ...] = ()  # of an SDE's step: the factors of v and x at each stage
    jump: float = 0.0  # standard deviation of an SDE's noise in the step

    @property
    def advance(self) -> float:
        """How far the step moves on the field's own clock: the solver's quadrature of eta over the step."""
        return self.dt * sum(b * eta for b, eta in zip(self.tableau.b, self.gains))

    def stage(self, x: Tensor, i: int, velocities: Sequence[Tensor]) -> Tensor:
        """The state at stage i of the step from x, with the velocities of earlier stages: ``x + dt sum_j a_ij eta_j v_j``."""
        for a, eta, v in zip(self.tableau.a[i], self.gains, velocities):
            x = x.add(v, alpha=self.dt * a * eta) if a else x
        return x

    def end(self, x: Tensor, velocities: Sequence[Tensor]) -> Tensor:
        """The state after the step from x, with the velocities of all stages: ``x + dt sum_j b_j eta_j v_j``."""
        for b, eta, v in zip(self.tableau.b, self.gains, velocities):
            x = x.add(v, alpha=self.dt * b * eta) if b else x
        return x


@dataclass(frozen=True)
class Adaptive(Solver):
    """An embedded pair of torchdiffeq's that chooses its steps; the grid says only where energies are read off.

    Attributes:
        tolerance: of a step's error, relative to ``1 + |x|``: the root mean square over a sample's dimensions, for the
            worst sample of the batch.
    """

    tolerance: float
    fixed_steps: ClassVar[bool] = False

    def times(self, edges: Tensor) -> Tensor:
        # It may evaluate at any time.
        return torch.cat([torch.linspace(float(edges[0]), float(edges[-1]), 1001, dtype=torch.float64), edges])

    def advances(self, gain: Callable[[Tensor], Tensor], edges: Tensor) -> Tensor:
        fine = edges[:-1, None] + torch.diff(edges)[:, None] * torch.linspace(0, 1, 201, dtype=torch.float64)
        return torch.trapezoid(gain(fine), fine)


EULER = Tableau("euler", c=(0,), a=((),), b=(1,))
MIDPOINT = Tableau("midpoint", c=(0, 1 / 2), a=((), (1 / 2,)), b=(0, 1))
HEUN = Tableau("heun", c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
RK4 = Tableau("rk4", c=(0, 1 / 2, 1 / 2, 1), a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))
DOPRI5 = Adaptive("dopri5", tolerance=1e-5)
SOLVERS: dict[str, Solver] = {solver.name: solver for solver in (EULER, MIDPOINT, HEUN, RK4, DOPRI5)}
