"""Authenticity (Alaa et al. 2022, arXiv 2102.08921): is a sample nearer to its training image than that one's own neighbour?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure, share
from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest


class AuthPct(CopyMeasure):
    """``auth_pct``: per cent of samples with ``d1 > r``, the distance from that training image to its own nearest other one.

    The rest are taken for copies; low is copying. Real samples do not reach 100 either: many lie nearer to their neighbour than
    that one to its own, which is why the floor is shown.

    Args:
        reference: ``[n, ...]`` the training images, at least 2. Distances among them are computed only for those that turn up as
            nearest, once.
        held_out: ``[m, ...]`` real images, for the floor.

    Raises:
        UserError: fewer than two training images.
    """

    column_names = ("d1", "nearest", "radius")
    name = "authenticity"
    label = "authenticity (AuthPct)"
    unit = "percent"
    key = "auth_pct"
    lower_is_copying = True

    def __init__(self, reference: Tensor | Reference, held_out: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(reference, held_out, **kwargs)
        if len(self.reference) < 2:
            raise UserError("One training image has no nearest other one.", "Pass at least 2.")
        self._radius = torch.full((len(self.reference),), torch.nan)

    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """``d1``, ``nearest`` (the training image's index) and ``radius``, its distance to its own nearest other one, ``[B]``."""
        distances, index = nearest(x, self.reference, 1)
        found = index[:, 0].cpu()
        new = found.unique()
        new = new[self._radius[new].isnan()]
        if len(new):
            # The nearest of all is the image itself; of exact copies, one of them, also at distance 0.
            self._radius[new] = nearest(self.reference.take(new), self.reference, 2)[0][:, 1].cpu()
        return {"d1": distances[:, 0], "nearest": index[:, 0], "radius": self._radius[found].to(distances.device)}

    def copied(self, columns: Columns) -> Tensor:
        return columns["d1"] <= columns["radius"]

    def value(self, columns: Columns) -> Interval:
        return share(~self.copied(columns), unit=100.0)
