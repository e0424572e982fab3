"""2-D toys: moons, eight Gaussians, checkerboard, spiral. Points, scaled to about [-1, 1] per coordinate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons

from fm_lightning.data.base import FlowData
from fm_lightning.data.split import Split
from fm_lightning.errors import UserError

Points = tuple[np.ndarray, np.ndarray]  # [n, 2], [n] class


def _moons(n: int, rng: np.random.Generator) -> Points:
    points, label = make_moons(n, noise=0.05, random_state=int(rng.integers(2**31)))
    return (points - [0.5, 0.25]) / 1.2, label


def _eight_gaussians(n: int, rng: np.random.Generator) -> Points:
    label = rng.integers(8, size=n)
    angle = label * np.pi / 4
    return 0.85 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.06 * rng.standard_normal((n, 2)), label


def _checkerboard(n: int, rng: np.random.Generator) -> Points:
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return (np.stack([column, row], 1) + rng.random((n, 2))) / 2 - 1, column


def _spiral(n: int, rng: np.random.Generator) -> Points:
    arm = rng.integers(2, size=n)
    radius = np.sqrt(rng.random(n))
    angle = 3 * np.pi * radius + arm * np.pi
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * rng.standard_normal((n, 2)), arm


TOYS: dict[str, tuple[Callable[[int, np.random.Generator], Points], int]] = {
    "moons": (_moons, 2),
    "eight_gaussians": (_eight_gaussians, 8),
    "checkerboard": (_checkerboard, 4),
    "spiral": (_spiral, 2),
}


class Toy2D(FlowData):
    """A 2-D distribution with n fixed training points.

    Args:
        name: "moons", "eight_gaussians", "checkerboard" or "spiral".
        n: number of training points; a small number is memorized.
        conditional: whether the class (moon, Gaussian, column, arm) is served as the label.
        data_seed: the seed of the points; the run's seed does not change them.
        kwargs: arguments of FlowData.
    """

    shape = (2,)
    space = "about [-1, 1] per coordinate"

    def __init__(
        self, name: str = "moons", n: int = 2000, conditional: bool = False, data_seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if name not in TOYS:
            raise UserError(f"name={name!r} is not one of {', '.join(TOYS)}.", "Set for example name=moons")
        if n < 1:
            raise UserError(f"n={n} must be at least 1.", "Set for example n=2000")
        self.toy, self.n, self.conditional, self.data_seed = name, n, conditional, data_seed
        self.num_classes = TOYS[name][1] if conditional else 0

    def load(self) -> None:
        rng = np.random.default_rng(self.data_seed)
        self.train_split, self.held_out_split, self.real_split = (self._draw(k, rng) for k in (self.n, 2000, 5000))

    def _draw(self, n: int, rng: np.random.Generator) -> Split:
        points, label = TOYS[self.toy][0](n, rng)
        y = torch.from_numpy(label.astype(np.int64)) if self.conditional else None
        return Split(torch.from_numpy(points.astype(np.float32)), y)
