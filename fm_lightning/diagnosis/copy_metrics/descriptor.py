"""Copy detection by the cosine of descriptors (SSCD: Pizzi et al. 2022, arXiv 2202.10261; Somepalli et al., arXiv 2212.03860)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure
from fm_lightning.errors import UserError
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest

SIMILAR = 0.5  # shares a training image's content (Somepalli et al.)
DESCRIBES = 16  # numbers in a descriptor, at least


class DescriptorCosine(CopyMeasure):
    """``cosine_copies``: the share of samples whose largest cosine with a training image exceeds ``threshold``.

    The default threshold is SSCD's; on other descriptors only the comparison with the floor is meaningful.

    Args:
        reference: ``[n, ...]`` descriptors of the training images (or the images themselves, where pixels are the descriptor).
        held_out: ``[m, ...]`` those of real images, for the floor.
        threshold: in (-1, 1).

    Raises:
        UserError: a threshold out of range, or a descriptor of length 0.
    """

    column_names = ("cosine", "nearest")
    name = "cosine"
    label = "cosine"
    key = "cosine_copies"
    described = True

    def __init__(
        self, reference: Tensor | Reference, held_out: Tensor | None = None, threshold: float = SIMILAR, **kwargs: Any
    ) -> None:
        if not -1 < threshold < 1:
            raise UserError(f"threshold={threshold:g} must be between -1 and 1.", "Pass, for example, threshold=0.5")
        rows = reference.rows(0, len(reference)) if isinstance(reference, Reference) else reference
        super().__init__(Reference(_directions(rows)), held_out, **kwargs)
        self.threshold = threshold

    @classmethod
    def of(cls, reference: Reference, held_out: Tensor) -> Self:
        """SSCD's threshold means nothing for other descriptors: a copy has a larger cosine than 99% of held-out images."""
        if reference.size < DESCRIBES:
            raise UserError(
                f"Directions of {reference.size} numbers say nothing.",
                f"Pass features of at least {DESCRIBES} numbers.",
            )
        columns = cls(reference, held_out).held_out_columns
        assert columns is not None
        limit = float(torch.quantile(columns["cosine"].double(), 0.99))
        return cls(reference, held_out, threshold=min(max(limit, -0.999), 0.999999))

    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """``cosine [B]``, the largest with a training image, and ``nearest [B]``, the index of that one."""
        distances, index = nearest(_directions(x), self.reference, 1)
        cosine = 1 - distances[:, 0].double().square() / 2  # of directions; exact where they are alike
        return {"cosine": cosine.float(), "nearest": index[:, 0]}

    def copied(self, columns: Columns) -> Tensor:
        return columns["cosine"] > self.threshold


def _directions(rows: Tensor) -> Tensor:
    """``[n, D]`` float32 of length 1 from ``[n, ...]``."""
    rows = rows.flatten(1).float()
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    if not (norms > 0).all():
        row = int((norms > 0).int().argmin())
        raise UserError(f"Descriptor {row} has length {float(norms[row]):g}, so no direction.", "Leave it out.")
    return rows / norms[:, None].float()
