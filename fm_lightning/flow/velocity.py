"""What the integrator asks of a velocity field besides its values.

A plain function ``velocity(x, t, y)`` is a velocity: it exists at every time and counts as one network evaluation. A field
of which something else is true declares it, all of ``DeclaredVelocity`` at once; no base class is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.guidance import Guidance

Velocity = Callable[..., Tensor]  # velocity(x [B, ...], t [B], y [B] | None) -> like x


@runtime_checkable
class DeclaredVelocity(Protocol):
    """A velocity with facts.

    Attributes:
        singular_end: the field does not exist at ``t = 1``.
    """

    singular_end: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``(x [B, ...], t [B], y [B] or None)`` -> like x."""

    def evaluations(self, t: float) -> int:
        """Network evaluations that a call at the time ``t`` costs."""
        ...

    def at(self, t: float) -> Velocity:
        """The same field for calls in which every row is at ``t``, a number that the host knows.

        Calls of equal functions may be merged into one batch; calls of different ones never are.
        """
        ...


@runtime_checkable
class GuidedVelocity(DeclaredVelocity, Protocol):
    """A velocity made of a conditional and an unconditional one.

    Attributes:
        record: keep what guidance does in the trajectories.
    """

    record: bool

    def parts_at(self, t: float) -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
        """Like ``at``; the function returns the guided, the conditional and the unconditional velocity.

        The last is None where only the conditional one is evaluated; then the first is the second.
        """
        ...


@runtime_checkable
class GuidableVelocity(DeclaredVelocity, Protocol):
    """A velocity with a null label, of which guided ones can be made."""

    def guided(self, guidance: Guidance) -> GuidedVelocity:
        """The same field under this guidance, in place of any that it has."""
        ...


def guidable(velocity: Velocity) -> bool:
    """Whether guided velocities can be made of it: it has a null label."""
    return isinstance(velocity, GuidableVelocity) and getattr(velocity, "null_label", 0) is not None


class Plain:
    """A plain function with the facts that are true of it."""

    singular_end = False

    def __init__(self, function: Velocity) -> None:
        self.function = function

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.function(x, t, y)

    def evaluations(self, t: float) -> int:
        return 1

    def at(self, t: float) -> Velocity:
        return self


def declared(velocity: Velocity) -> DeclaredVelocity:
    """The velocity with its facts, those of a plain function where it declares none.

    Raises:
        UserError: it cannot be called as ``velocity(x, t, y)``.
    """
    if isinstance(velocity, DeclaredVelocity):
        return velocity
    if not callable(velocity):
        raise UserError(
            f"A velocity is a function, not a {type(velocity).__name__}.", "Pass velocity(x, t, y) -> like x."
        )
    if (reason := _misfit(velocity)) is not None:
        raise UserError(
            f"{getattr(velocity, '__qualname__', type(velocity).__name__)} cannot be called as velocity(x, t, y): {reason}.",
            "Wrap it in a function velocity(x, t, y=None) that calls it.",
        )
    return Plain(velocity)


def _misfit(velocity: Velocity) -> str | None:
    """Why a call with three arguments would fail, None where it would not."""
    try:
        signature = inspect.signature(velocity.forward if isinstance(velocity, nn.Module) else velocity)
    except ValueError:  # a compiled function may have none
        return None
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        return str(error)
    return None


@contextmanager
def evaluating(velocity: Velocity) -> Iterator[None]:
    """Within it a network (or the one whose method this is) is in evaluation mode; afterwards each module is as it was.

    In training mode dropout and batch statistics would make another field of it, and of every evaluation a different one.
    """
    owner = getattr(velocity, "__self__", velocity)
    training = [module for module in owner.modules() if module.training] if isinstance(owner, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
