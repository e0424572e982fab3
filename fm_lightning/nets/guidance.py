"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), for velocities:

    v = v(x, t, null) + scale * (v(x, t, y) - v(x, t, null))

``scale`` 1 is the conditional velocity, 0 the unconditional one, more than 1 exaggerates the class. The
network must have learned the null label: training replaces a share of the labels by it (``drop_labels``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.nets.velocity import Velocity

Parts = tuple[Tensor, Tensor, Tensor | None]  # guided, conditional, unconditional


@dataclass(frozen=True)
class Guidance:
    """How sampling is guided; see ``Guided`` for the arguments. ``scale`` 1 is none."""

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    record: bool = False

    def of(self, net: nn.Module) -> nn.Module:
        """The network, guided so."""
        return net if self.scale == 1 else Guided(net, self.scale, self.channels, self.interval, self.record)


class Guided(Velocity):
    """The guided velocity of ``net``: one batch of twice the size, or one evaluation where nothing is guided.

    Args:
        net: a conditional velocity network ``v(x, t, y)``.
        scale: the guidance scale above. (Others count from 0: their ``w`` is ``scale - 1``.)
        channels: guide the first so many channels only; the others keep the conditional velocity (SiT's public sampler
            guides 3 of 4). None guides all.
        interval: guide at times from its first to its last alone (Kynkäänniemi et al. 2024, arXiv 2404.07724), both in
            [0, 1]; at other times the velocity is the conditional one. A time beyond 1, which a network may be told, is 1.
        record: have ``integrate`` keep what guidance does: ``Trajectory.guidance_energy`` and ``guidance_gap``. Two norms
            more at each evaluation.
        null_label: the label that means "no class"; by default ``net.null_label``.

    Raises:
        UserError: no null label is known, ``channels`` below 1 or an interval out of order; at call, no labels or fewer
            channels than are to be guided.
    """

    def __init__(
        self,
        net: nn.Module,
        scale: float,
        channels: int | None = None,
        interval: Sequence[float] = (0.0, 1.0),
        record: bool = False,
        null_label: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(net, Velocity):
            self.num_classes, self.singular_end = net.num_classes, net.singular_end
            null_label = net.null_label if null_label is None else null_label
        if null_label is None:
            raise UserError(
                f"{type(net).__name__} has no null label, which guidance needs.",
                "Train a network with null_class=True, or pass null_label=... if a label means no class.",
            )
        if channels is not None and channels < 1:
            raise UserError(f"channels={channels} must be at least 1.", "Leave it out to guide all channels.")
        if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
            raise UserError(
                f"interval={list(interval)} must be two ascending times in [0, 1].",
                "Use for example interval=(0.1, 0.8).",
            )
        self.net, self.scale, self.channels = net, scale, channels
        self.begin, self.end = map(float, interval)
        self.record = record
        self.null_label: int = null_label

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The velocity at any times ``[B]``; ``at`` saves the second evaluation where a whole batch needs none."""
        if self.scale == 1:
            return self._conditional(x, t, y)
        guided, conditional, _ = self._guided_parts(x, t, y)
        if (self.begin, self.end) == (0, 1):
            return guided
        time = t.clamp(0, 1).reshape(-1, *[1] * (x.ndim - 1))
        return torch.where((time >= self.begin) & (time <= self.end), guided, conditional)

    def guides(self, t: float) -> bool:
        """Whether the velocity at the time ``t`` is another than the conditional one."""
        return self.scale != 1 and self.begin <= min(max(t, 0.0), 1.0) <= self.end

    def evaluations(self, t: float) -> int:
        each = self.net.evaluations(t) if isinstance(self.net, Velocity) else 1
        return 2 * each if self.guides(t) else each

    def at(self, t: float) -> Callable[..., Tensor]:
        return self._guided if self.guides(t) else self._conditional

    def parts_at(self, t: float) -> Callable[..., Parts]:
        """Like ``at``, for who wants to see the guided, the conditional and the unconditional velocity.

        Where nothing is guided, the first two are one tensor and the last is None.
        """
        return self._guided_parts if self.guides(t) else self._conditional_parts

    def check_shape(self, shape: Sequence[int]) -> None:
        if isinstance(self.net, Velocity):
            self.net.check_shape(shape)
        if self.channels is not None and self.channels > shape[0]:
            raise UserError(
                f"channels={self.channels} exceeds the {shape[0]} channels of samples of shape {list(shape)}.",
                "Leave it out to guide all channels.",
            )

    def _guided(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self._guided_parts(x, t, y)[0]

    def _guided_parts(self, x: Tensor, t: Tensor, y: Tensor | None) -> Parts:
        y = self._labels(x, y)
        labels = torch.cat([torch.full_like(y, self.null_label), y])
        # An expanded time stays one number in memory, so that the network embeds it once.
        times = t[:1].expand(2 * len(t)) if t.stride(0) == 0 else torch.cat([t, t])
        null, conditional = self.net(torch.cat([x, x]), times, labels).chunk(2)
        guided = torch.lerp(null[:, : self.channels], conditional[:, : self.channels], self.scale)
        if self.channels is not None:
            guided = torch.cat([guided, conditional[:, self.channels :]], 1)
        return guided, conditional, null

    def _conditional(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self.net(x, t, self._labels(x, y))

    def _conditional_parts(self, x: Tensor, t: Tensor, y: Tensor | None) -> Parts:
        v = self._conditional(x, t, y)
        return v, v, None

    def _labels(self, x: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise UserError("Guidance needs labels.", "Pass labels=..., one per sample.")
        if self.channels is not None:
            self.check_shape(x.shape[1:])
        return y


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
