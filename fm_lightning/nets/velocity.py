"""What a velocity is: ``v(x, t, y)``, and the facts about it that others need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.guidance import Guidance

Parts = tuple[Tensor, Tensor, Tensor | None]  # guided, conditional, unconditional


class Velocity(nn.Module):
    """A velocity network: ``forward(x, t, y=None)`` takes ``x [B, ...]``, ``t [B]`` in [0, 1] and ``y [B]`` int64 or None,
    and returns like x.

    Attributes:
        num_classes: number of classes that it is conditioned on; 0 for none.
        null_label: the label that means "no class", which guidance needs; None where there is none.
        singular_end: the field does not exist at ``t = 1``.
        trained_on: first and last time at which the network was trained; sampling begins at the first.
    """

    num_classes: int = 0
    null_label: int | None = None
    singular_end: bool = False
    trained_on: tuple[float, float] = (0.0, 1.0)

    def evaluations(self, t: float) -> int:
        """Network evaluations that a call at the time ``t`` costs."""
        return 1

    def at(self, t: float) -> Callable[..., Tensor]:
        """The same field for calls in which every sample is at ``t``, a number that the host knows.

        A field that does less work at some times returns another function there. Equal functions may be called together
        in one batch.
        """
        return self

    def guided(self, guidance: Guidance) -> Guided:
        """The velocity under guidance.

        Raises:
            UserError: the network has no null label.
        """
        return Guided(self, guidance.scale, guidance.channels, guidance.interval, guidance.record)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for samples of a shape that the network cannot take."""


class Guided(Velocity):
    """The guided velocity of ``net``: one batch of twice the size, or one evaluation where nothing is guided.

    Args:
        net: a conditional velocity network ``v(x, t, y)``.
        scale, channels, interval, record: see ``Guidance``.
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
            self.trained_on = net.trained_on
            null_label = net.null_label if null_label is None else null_label
        if null_label is None:
            raise UserError(
                f"{type(net).__name__} has no null label, which guidance needs.",
                "Train a network with null_class=True, or pass null_label=... if a label means no class.",
            )
        self.net = net
        self.guidance = Guidance(scale, channels, tuple(interval), record)  # type: ignore[arg-type]
        self.scale, self.channels, self.record = scale, channels, record
        self.begin, self.end = self.guidance.interval
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
        """Whether the velocity at the time ``t`` differs from the conditional one."""
        return self.guidance.guides(t)

    def guided(self, guidance: Guidance) -> Guided:
        """The network under another guidance, in place of this one."""
        return Guided(self.net, guidance.scale, guidance.channels, guidance.interval, guidance.record, self.null_label)

    def evaluations(self, t: float) -> int:
        each = self.net.evaluations(t) if isinstance(self.net, Velocity) else 1
        return 2 * each if self.guides(t) else each

    def at(self, t: float) -> Callable[..., Tensor]:
        return self._guided if self.guides(t) else self._conditional

    def parts_at(self, t: float) -> Callable[..., Parts]:
        """Like ``at``; the function returns the guided, the conditional and the unconditional velocity.

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


def check_network(net: nn.Module, shape: Sequence[int], num_classes: int) -> None:
    """Raises UserError where data have another number of classes or another shape than the network was built for.

    Nothing is known of a network that is no ``Velocity``, and nothing is refused.
    """
    if not isinstance(net, Velocity):
        return
    if net.num_classes != num_classes:  # labels that the network ignores would only look as if they meant something
        raise UserError(
            f"The network is for {net.num_classes or 'no'} classes and the data have {num_classes or 'none'}.",
            f"Build the network with num_classes={num_classes}"
            + (", or the data with conditional=False." if num_classes else "."),
        )
    net.check_shape(shape)


def check_null_label(net: nn.Module, given: str) -> None:
    """Raises UserError where a network has no label that means "no class"; ``given`` says what needs one."""
    if not isinstance(net, Velocity) or net.null_label is None:
        raise UserError(
            f"{given}: the network has no null label.",
            "Build it with null_class=True and num_classes, or leave both options out.",
        )


def check_returned(net: Callable[..., Any], v: object, x: Tensor) -> None:
    """Raises UserError where a network returns no tensor, or one of another shape, which would be broadcast."""
    if not isinstance(v, Tensor):
        raise UserError(
            f"{type(net).__name__} returns a {type(v).__name__}, not a tensor.",
            "Wrap it in a module that returns the velocity alone, for example net(x, t)[0].",
        )
    if v.shape != x.shape:
        raise UserError(
            f"{type(net).__name__} returns a velocity of shape {list(v.shape)} for samples of shape {list(x.shape)}.",
            "Return one number per number of x.",
        )
