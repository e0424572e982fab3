"""Fields and starts that several test files sample from."""

from __future__ import annotations

import numpy as np
import torch


def col(t, x):
    """``t [B]`` against ``x [B, ...]``."""
    return t.reshape(-1, *[1] * (x.dim() - 1)).to(x)


def start(shape=(5, 3), seed=0, dtype=torch.float64):
    """Standard normal rows."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


class Contracting:
    """A contracting field that depends on time and remembers the times it was told."""

    def __init__(self):
        self.t = []

    def __call__(self, x, t, y=None):
        self.t.append(t.clone())
        return torch.cos(2 * col(t, x)) - 0.7 * x

    @property
    def told(self):
        return [float(t[0]) for t in self.t]
