"""Time grids: the edges 0 = t_0 < ... < t_S of a sampling run, in float64.

    uniform   i / N
    cosine    (1 - cos(pi i / N)) / 2
    shifted   1 - s u / (1 + (s - 1) u),  u = 1 - i / N     (SD3, arXiv 2403.03206, eq. 23; s > 1 spends steps on noise)

Edges are quotients of integers, because a float32 ``linspace`` puts tau = 0.1 ... 0.4 below itself and would move a step
across the split between launch and landing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fm_lightning.errors import UserError


def uniform(steps: int) -> Tensor:
    """``[steps + 1]`` equally spaced edges."""
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def cosine(steps: int) -> Tensor:
    """``[steps + 1]`` edges, dense at both ends."""
    edges = (1 - torch.cos(torch.pi * uniform(steps))) / 2
    edges[-1] = 1.0
    return edges


def shifted(steps: int, shift: float = 3.0) -> Tensor:
    """``[steps + 1]`` edges of Stable Diffusion 3's shifted grid; ``shift = 1`` is uniform."""
    if not 0 < shift < float("inf"):
        raise UserError(f"shift={shift:g} of the grid must be positive.", "Use for example grid='shifted:3'.")
    noise_level = 1 - uniform(steps)
    return 1 - shift * noise_level / (1 + (shift - 1) * noise_level)


def named_grid(name: str, steps: int) -> Tensor:
    """The edges of ``"uniform"``, ``"cosine"``, ``"shifted"`` or ``"shifted:2.5"``."""
    kind, _, argument = name.partition(":")
    if kind == "shifted":
        try:
            shift = float(argument or 3.0)
        except ValueError:
            raise UserError(
                f"grid={name!r} needs a positive number after the colon.", "Use for example grid='shifted:3'."
            ) from None
        return shifted(steps, shift)
    if name not in ("uniform", "cosine"):
        raise UserError(f"grid={name!r} is unknown.", "Use 'uniform', 'cosine', 'shifted:3' or ascending times.")
    return uniform(steps) if name == "uniform" else cosine(steps)


def given_edges(grid: Iterable[float], t_start: float, t_end: float) -> tuple[float, ...]:
    """Edges that a user has chosen, as numbers; ``t_start`` and ``t_end`` are the default or agree with them.

    Raises:
        UserError: other than ascending times in [0, 1], or another beginning or end.
    """
    try:
        edges = tuple(float(t) for t in grid)
    except (TypeError, ValueError, RuntimeError):  # not a sequence, or not of numbers
        edges = ()
    ascending = all(a < b for a, b in itertools.pairwise(edges))
    if len(edges) < 2 or not ascending or not edges[0] >= 0 or not edges[-1] <= 1:
        raise UserError(
            f"grid={_shorten(edges)} must be at least two ascending times in [0, 1].",
            "Use for example grid=[0, 0.5, 1].",
        )
    if t_end not in (1.0, edges[-1]):
        raise UserError(f"t_end={t_end:g} contradicts a grid that ends at {edges[-1]:g}.", "Pass the grid alone.")
    if t_start not in (0.0, edges[0]):
        raise UserError(f"t_start={t_start:g} contradicts a grid that begins at {edges[0]:g}.", "Pass the grid alone.")
    return edges


def _shorten(edges: Sequence[float]) -> str:
    head = ", ".join(f"{t:g}" for t in edges[:4])
    return f"[{head}{', ...' if len(edges) > 4 else ''}]"
