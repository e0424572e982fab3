"""Couplings: which noise goes with which data point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor


class Coupling(ABC):
    """Re-orders the noise of a batch. ``looks_at_batch``: the order depends on the whole (global) batch."""

    looks_at_batch: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, x0: Tensor, x1: Tensor, y: Tensor | None = None) -> Tensor:
        """``x0`` re-ordered so that ``x0[i]`` goes with ``x1[i]``; both ``[B, ...]``, ``y [B]`` the labels of ``x1``."""


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise and data as they come."""

    looks_at_batch: ClassVar[bool] = False

    def __call__(self, x0: Tensor, x1: Tensor, y: Tensor | None = None) -> Tensor:
        return x0


@dataclass(frozen=True)
class OptimalTransport(Coupling):
    """Minibatch optimal transport (arXiv 2302.00482, 2304.14772): the assignment with the least ``sum ||x1 - x0||^2``.

    Exact (``scipy.optimize.linear_sum_assignment``), its time grows with the cube of the batch. Data points keep their
    places, and so do their labels: only the noise moves.

    With labels noise moves within a class alone. Over all of the batch each class would be given the noise nearest to it, and
    sampling, where noise and label are independent, would start from noise that the class never saw (of four separate
    Gaussians one sample in eight then misses its class).
    """

    def __call__(self, x0: Tensor, x1: Tensor, y: Tensor | None = None) -> Tensor:
        from scipy.optimize import linear_sum_assignment  # late: sampling does not need it

        # |a - b|^2 = |a|^2 + |b|^2 - 2 ab, and neither square depends on the assignment.
        gain = (x1.flatten(1).double() @ x0.flatten(1).double().T).cpu().numpy()  # [B, B]
        order = np.arange(len(x1))
        labels = np.zeros_like(order) if y is None else y.cpu().numpy()
        for label in np.unique(labels):
            (rows,) = np.nonzero(labels == label)
            _, chosen = linear_sum_assignment(gain[np.ix_(rows, rows)], maximize=True)
            order[rows] = rows[chosen]
        return x0[torch.from_numpy(order).to(x0.device)]
