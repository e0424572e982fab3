"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), for velocities:

    v = v(x, t, null) + scale * (v(x, t, y) - v(x, t, null))

``scale`` 1 is the conditional velocity, 0 the unconditional one, more than 1 exaggerates the class. The
network must have learned the null label: training replaces a share of the labels by it (``drop_labels``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError


class Guided(nn.Module):
    """The guided velocity of ``net``, in one batch of twice the size (of the same size where ``scale`` is 1).

    Args:
        net: a velocity network ``v(x, t, y)``.
        scale: the guidance scale above. (Others count from 0: their ``w`` is ``scale - 1``.)
        null_label: the label that means "no class"; by default ``net.null_label``.

    Raises:
        UserError: no null label is known; at call, no labels.
    """

    def __init__(self, net: nn.Module, scale: float, null_label: int | None = None) -> None:
        super().__init__()
        known = null_label if null_label is not None else getattr(net, "null_label", None)
        if known is None:
            raise UserError(
                f"Guided got a {type(net).__name__} without a null label, expected one trained with "
                "null_class=True; give null_label=... if some label means no class"
            )
        self.net = net
        self.scale = scale
        self.null_label = int(known)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise UserError("Guided got no labels, expected one per sample; pass labels=...")
        if self.scale == 1:
            return self.net(x, t, y)
        labels = torch.cat([torch.full_like(y, self.null_label), y])
        null, conditional = self.net(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
        return torch.lerp(null, conditional, self.scale)


def drop_labels(labels: Tensor, draws: Tensor, probability: float, null_label: int) -> Tensor:
    """Labels for training: each becomes ``null_label`` where its draw is below ``probability``.

    Args:
        labels: ``[B]`` int64.
        draws: ``[B]`` uniform in [0, 1), from the caller, who makes them depend on seed and position alone.
        probability: share to drop, 0.1 to 0.2 by custom.
        null_label: ``UNet.null_label``.

    Returns:
        ``[B]`` int64, a new tensor.
    """
    return torch.where(draws < probability, null_label, labels)
