"""Velocities whose clock runs from data to noise, as REPA's and diffusers' do."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fm_lightning.nets.velocity import Velocity


class Reversed(Velocity):
    """``v(x, t, y) = -net(x, 1 - t, y)``: a network trained with data at t = 0 and velocity noise - data, on our clock.

    Args:
        net: the network on its own clock; its ``num_classes`` and ``null_label`` hold here too.
    """

    def __init__(self, net: Velocity) -> None:
        super().__init__()
        self.net = net
        self.num_classes, self.null_label = net.num_classes, net.null_label
        self.trained_on = (1 - net.trained_on[1], 1 - net.trained_on[0])

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        # t[:1] keeps the time of all samples one number, which networks embed once.
        return -self.net(x, (1 - t[:1]).expand(len(x)) if t.stride(0) == 0 else 1 - t, y)

    def evaluations(self, t: float) -> int:
        return self.net.evaluations(1 - t)

    def check_shape(self, shape: Sequence[int]) -> None:
        self.net.check_shape(shape)
