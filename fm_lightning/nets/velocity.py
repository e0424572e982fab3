"""What a velocity network is: a module ``v(x, t, y)`` that declares what others need to know of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class Velocity(nn.Module):
    """``v(x, t, y)``: ``x [B, ...]``, ``t [B]`` in [0, 1], ``y [B]`` int64 or None; returns like ``x``.

    Attributes:
        num_classes: 0 for an unconditional network, which ignores labels.
        null_label: the label that means "no class", or None where the network has none.
        singular_end: whether the velocity does not exist at t = 1.
    """

    num_classes: int = 0
    null_label: int | None = None
    singular_end: bool = False

    def evaluations(self, t: float) -> int:
        """Network evaluations per call at time ``t``."""
        return 1

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for samples of a shape that the network cannot take."""
