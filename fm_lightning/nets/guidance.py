"""Training for guidance: a share of the labels becomes the null label (Ho & Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.guidance import Guidance
from fm_lightning.nets.velocity import Guided

__all__ = ["Guidance", "Guided", "drop_labels"]


def drop_labels(labels: Tensor, draws: Tensor, probability: float, null_label: int) -> Tensor:
    """Labels for training: each becomes ``null_label`` where its draw is below ``probability``.

    Args:
        labels: ``[B]`` int64.
        draws: ``[B]`` uniform in [0, 1), from the caller, who makes them depend on seed and position alone.
        probability: share to drop, 0.1 to 0.2 by custom.
        null_label: ``Velocity.null_label`` of the network.

    Returns:
        ``[B]`` int64, a new tensor.
    """
    return torch.where(draws < probability, null_label, labels)
