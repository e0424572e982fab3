"""Explicit Runge-Kutta methods as Butcher tableaux: the only thing in which Euler, midpoint, Heun and RK4 differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """``k_s = f(t + c_s dt, x + dt sum_j a_sj k_j)``, then ``x + dt sum_s b_s k_s``."""

    name: str
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


EULER = Tableau("euler", c=(0,), a=((),), b=(1,))
MIDPOINT = Tableau("midpoint", c=(0, 1 / 2), a=((), (1 / 2,)), b=(0, 1))
HEUN = Tableau("heun", c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
RK4 = Tableau(
    "rk4",
    c=(0, 1 / 2, 1 / 2, 1),
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
TABLEAUX = {tableau.name: tableau for tableau in (EULER, MIDPOINT, HEUN, RK4)}
