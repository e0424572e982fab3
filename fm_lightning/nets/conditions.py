"""What every network does with its conditions: the time, and the class."""

from __future__ import annotations

from torch import Tensor, nn

from fm_lightning.errors import UserError


def check_labels(net: nn.Module, y: Tensor | None, num_classes: int) -> None:
    """A conditional network needs labels. An unconditional one ignores labels.

    Raises:
        UserError: a conditional network got no labels.
    """
    if num_classes and y is None:
        raise UserError(
            f"{type(net).__name__} with num_classes={num_classes} needs labels.",
            "Pass labels=..., or build it with num_classes=0.",
        )


def distinct(t: Tensor) -> Tensor:
    """``[1]`` where all ``[B]`` times are one number expanded (as in sampling), so that it is embedded once; else ``t``."""
    return t[:1] if t.stride(0) == 0 else t
