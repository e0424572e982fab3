"""Calibrated distance to the nearest training image (Carlini et al. 2023, arXiv 2301.13188, section 5.1)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure
from fm_lightning.errors import UserError
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest


class CalibratedDistance(CopyMeasure):
    """``d1 / (alpha mean(d1 ... dn))``: near what is usual around the sample, or much nearer than that?

    A sample is taken for a copy if it lies below the held-out samples' 1% quantile. Hence ``calibrated_copies`` is the share of
    samples below it, and its floor 1% by construction.

    Args:
        reference: ``[n, ...]`` the training images, at least ``neighbours``.
        held_out: ``[m, ...]`` real images, at least 100: fewer have no 1% quantile. ``measure`` needs none.
        alpha: Carlini et al. take 0.5.
        neighbours: n, 50 in the paper.

    Raises:
        UserError: fewer training images than neighbours, alpha not above 0, or fewer than 100 held-out images.
    """

    column_names = ("calibrated",)
    name = "calibrated"
    label = "calibrated distance"
    key = "calibrated_copies"

    def __init__(
        self,
        reference: Tensor | Reference,
        held_out: Tensor | None = None,
        alpha: float = 0.5,
        neighbours: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(reference, held_out, **kwargs)
        if not 1 <= neighbours <= len(self.reference):
            raise UserError(
                f"neighbours={neighbours} must be between 1 and the {len(self.reference):,} training images.",
                f"Pass, for example, neighbours={min(50, len(self.reference))}",
            )
        if not alpha > 0:
            raise UserError(f"alpha={alpha:g} must be positive.", "Pass, for example, alpha=0.5")
        if held_out is not None and len(held_out) < 100:
            raise UserError(
                f"{len(held_out)} held-out samples have no 1% quantile.", "Pass at least 100, or leave held_out out."
            )
        self.alpha, self.neighbours = alpha, neighbours

    @classmethod
    def of(cls, reference: Reference, held_out: Tensor) -> Self:
        return cls(reference, held_out, neighbours=min(50, len(reference)))

    @property
    def fingerprint(self) -> str:
        return text_hash(super().fingerprint, self.alpha, self.neighbours)

    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """``calibrated [B]``; an exact copy has 0, also of an image that stands there n times."""
        distances, _ = nearest(x, self.reference, self.neighbours)
        mean = self.alpha * distances.double().mean(1)
        return {"calibrated": torch.where(distances[:, 0] == 0, 0.0, distances[:, 0] / mean).float()}

    @property
    def threshold(self) -> float:
        """The held-out samples' 1% quantile.

        Raises:
            UserError: there are none.
        """
        if self.held_out_columns is None:
            raise UserError("Without held-out samples there is no threshold for copies.", "Pass held_out.")
        return float(torch.quantile(self.held_out_columns["calibrated"].double(), 0.01))

    def copied(self, columns: Columns) -> Tensor:
        return columns["calibrated"].double() < self.threshold
