"""What every network does with its conditions: the time, and the class; and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.nets.velocity import Velocity


def check_labels(net: Velocity, y: Tensor | None) -> None:
    """A conditional network needs labels. An unconditional one ignores labels.

    Raises:
        UserError: a conditional network got no labels.
    """
    if net.num_classes and y is None:
        raise UserError(
            f"{type(net).__name__} with num_classes={net.num_classes} needs labels.",
            "Pass labels=..., or build it with num_classes=0.",
        )


def labels_up_to(last: int, net: Velocity, y: Tensor | None, about: str, fix: str) -> Tensor:
    """The labels ``[B]`` of a conditional network, from 0 to ``last``.

    Raises:
        UserError: no labels, or (on the CPU; elsewhere this would wait for the device) labels out of range; ``about`` says more
            of the last one, ``fix`` what to do.
    """
    check_labels(net, y)
    assert y is not None
    if y.device.type == "cpu" and not torch.compiler.is_compiling() and ((y < 0) | (y > last)).any():
        raise UserError(
            f"{type(net).__name__} takes labels 0 ... {last}{about}, not {int(y.min())} ... {int(y.max())}.", fix
        )
    return y


def null_label(net: Velocity, null_class: bool) -> int | None:
    """The label that means "no class", one more than the classes; None without a null class.

    Raises:
        UserError: a null class without classes.
    """
    if null_class and not net.num_classes:
        raise UserError(
            f"{type(net).__name__}: null_class=True needs num_classes of at least 1.",
            "Set num_classes, or leave null_class out.",
        )
    return net.num_classes if null_class else None


def check_same_shape(net: Velocity, own: Sequence[int], shape: Sequence[int]) -> None:
    """Raises UserError for samples of another shape than the network's own."""
    if tuple(shape) != tuple(own):
        raise UserError(
            f"{type(net).__name__} takes samples of shape {list(own)}, not {list(shape)}.",
            f"Build it with shape={list(shape)}.",
        )


def distinct(t: Tensor) -> Tensor:
    """``[1]`` where all ``[B]`` times are one number expanded (as in sampling), so that it is embedded once; else ``t``."""
    return t[:1] if t.stride(0) == 0 else t


def drop_labels(labels: Tensor, draws: Tensor, probability: float, null_label: int) -> Tensor:
    """Labels for training with guidance (Ho & Salimans 2022, arXiv 2207.12598): some become the null label.

    Args:
        labels: ``[B]`` int64.
        draws: ``[B]`` uniform in [0, 1); a label is dropped where its draw is below ``probability``.
        probability: share to drop, 0.1 to 0.2 by custom.
        null_label: ``Velocity.null_label`` of the network.

    Returns:
        ``[B]`` int64, a new tensor.
    """
    return torch.where(draws < probability, null_label, labels)
