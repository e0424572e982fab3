"""Models of Meta's flow_matching library: ``model(x, t, **extras)``, on our clock."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fm_lightning.nets.conditions import check_labels
from fm_lightning.nets.velocity import Velocity


class MetaVelocity(Velocity):
    """``v(x, t, y) = model(x, t, label=y, **extras)`` for a model of the flow_matching library.

    Args:
        model: called with ``x [B, ...]``, ``t [B]`` and keywords; returns the velocity, like ``x``.
        num_classes: number of classes; 0 for a model that takes no labels.
        null_label: the label that means "no class", if there is one.
        label: the keyword by which the model takes labels.
        **extras: keywords that it is given at every call.
    """

    def __init__(
        self, model: nn.Module, num_classes: int = 0, null_label: int | None = None, label: str = "label", **extras: Any
    ) -> None:
        super().__init__()
        self.model, self.label, self.extras = model, label, extras
        self.num_classes, self.null_label = num_classes, null_label

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        check_labels(self, y)
        labels = {self.label: y} if self.num_classes else {}
        return self.model(x, t.expand(len(x)), **labels, **self.extras)
