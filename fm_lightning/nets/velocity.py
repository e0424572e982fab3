"""What a velocity is: ``v(x, t, y)``, and the facts about it that others need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Velocity(nn.Module):
    """A velocity network: ``forward(x, t, y=None)`` takes ``x [B, ...]``, ``t [B]`` in [0, 1] and ``y [B]`` int64 or None,
    and returns like x.

    Attributes:
        num_classes: number of classes that it is conditioned on; 0 for none.
        null_label: the label that means "no class", which guidance needs; None where there is none.
        singular_end: the field does not exist at ``t = 1``.
    """

    num_classes: int = 0
    null_label: int | None = None
    singular_end: bool = False

    def evaluations(self, t: float) -> int:
        """Network evaluations that a call at the time ``t`` costs."""
        return 1

    def at(self, t: float) -> Callable[..., Tensor]:
        """The same field for calls in which every sample is at ``t``, a number that the host knows.

        A field that does less work at some times returns another function there. Equal functions may be called together
        in one batch.
        """
        return self

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for samples of a shape that the network cannot take."""
