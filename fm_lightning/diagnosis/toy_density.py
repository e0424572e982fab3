"""True log densities of the 2-D toys (``toys.py``), up to what is named for each.

eight_gaussians   closed form: a mixture of eight Gaussians
checkerboard      closed form: 1/2 on its squares, 0 elsewhere
moons, spiral     a curve c(s) blurred by noise, ``p(x) = int w(s) N(x; c(s), sigma^2 I) ds``, by Gauss-Legendre quadrature
                  with nodes at most half a sigma apart: correct to 1e-6 near the curve (tested by doubling them)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import UserError

NODES = {"moons": 256, "spiral": 2048}
BLOCK = 2**22  # pairs of point and node at once


def log_density(name: str, points: Tensor) -> Tensor:
    """``[n]`` float64 log densities, in nats, of a toy at ``points [n, 2]``; minus infinity off the checkerboard's squares.

    Args:
        name: as for ``Toy2D``.

    Raises:
        UserError: an unknown toy, or points that are not two numbers each.
    """
    if name not in _DENSITIES:
        raise UserError(f"No density is known for the toy {name!r}.", f"Use one of {', '.join(_DENSITIES)}.")
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError(f"The points have shape {list(points.shape)}, not [n, 2].", "Pass samples of a 2-D toy.")
    return _DENSITIES[name](points.detach().double()).to(points.device)


def _mixture(x: Tensor, centres: Tensor, weights: Tensor, sigma: float) -> Tensor:
    parts = [
        (torch.cdist(part, centres).square() / (-2 * sigma**2) + weights.log()).logsumexp(1)
        for part in x.cpu().split(max(1, BLOCK // len(centres)))
    ]
    return torch.cat(parts) - math.log(2 * math.pi * sigma**2)


def _circle(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], 1)


def _legendre(name: str) -> tuple[Tensor, Tensor]:
    """A curve's nodes in (0, 1), 16 in each of equal panels, and weights that add up to 1."""
    s, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(16))
    panels = NODES[name] // 16
    places = (torch.arange(panels)[:, None] + (s + 1) / 2) / panels
    return places.flatten(), (w / 2 / panels).repeat(panels)


def _eight_gaussians(x: Tensor) -> Tensor:
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    return _mixture(x, 0.85 * _circle(angle), torch.full((8,), 1 / 8, dtype=torch.float64), 0.06)


def _checkerboard(x: Tensor) -> Tensor:
    column, row = (2 * (x + 1)).floor().unbind(1)
    inside = (column >= 0) & (column < 4) & (row >= 0) & (row < 4) & (row % 2 == column % 2)
    return torch.where(inside, torch.tensor(math.log(0.5), dtype=torch.float64), -torch.inf)


def _moons(x: Tensor) -> Tensor:
    s, w = _legendre("moons")
    outer = _circle(math.pi * s)
    inner = torch.tensor([1.0, 0.5], dtype=torch.float64) - outer
    middle = torch.tensor([0.5, 0.25], dtype=torch.float64)
    return _mixture(x, (torch.cat([outer, inner]) - middle) / 1.2, torch.cat([w, w]) / 2, 0.05 / 1.2)


def _spiral(x: Tensor) -> Tensor:
    radius, w = _legendre("spiral")
    w = 2 * radius * w  # the density of the square root of a uniform number is 2 r
    arm = radius[:, None] * _circle(3 * math.pi * radius)
    return _mixture(x, torch.cat([arm, -arm]), torch.cat([w, w]) / 2, 0.02)


_DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "moons": _moons,
    "eight_gaussians": _eight_gaussians,
    "checkerboard": _checkerboard,
    "spiral": _spiral,
}
