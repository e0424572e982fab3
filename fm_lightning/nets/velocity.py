"""What a velocity is: ``v(x, t, y)``, and the facts about it that others need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fm_lightning.errors import UserError


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


def check_network(net: nn.Module, shape: Sequence[int], num_classes: int) -> None:
    """Raises UserError where data have another number of classes or another shape than the network was built for.

    Of a network that is no ``Velocity`` nothing is known, and nothing refused.
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


def check_returned(net: nn.Module, v: object, x: Tensor) -> None:
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
