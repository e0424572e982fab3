"""Copy detection by the cosine of descriptors (SSCD: Pizzi et al. 2022, arXiv 2202.10261; Somepalli et al., arXiv 2212.03860)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure, Interval, quantiles, share
from fm_lightning.errors import UserError
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest

SIMILAR = 0.5  # shares a training image's content (Somepalli et al.)
PRECISE = 0.75  # 90% precision of SSCD on DISC
OTHERS = 2000  # training images that are compared with their own nearest other one


class DescriptorCosine(CopyMeasure):
    """``cosine_copies``: the share of samples whose largest cosine with a training image exceeds ``threshold``.

    The thresholds are SSCD's; on other descriptors only the comparisons with the floor and among the training images
    themselves are meaningful. ``summarize`` adds ``cosine_mean``, its quantiles ``cosine_q75``, ``_q90``, ``_q95``,
    ``cosine_over_0.75``, and ``cosine_train_mean``: the mean cosine of training images (2,000 of them, evenly spaced) with their
    nearest other one.

    Args:
        reference: ``[n, ...]`` descriptors of the training images (or the images themselves, where pixels are the descriptor).
        held_out: ``[m, ...]`` those of real images, for the floor.
        threshold: in (-1, 1).
        space: brings samples to where the descriptors are, see ``CopyMeasure``.

    Raises:
        UserError: a threshold out of range, or a descriptor of length 0.
    """

    key = "cosine_copies"
    lower_is_copying = False

    def __init__(
        self,
        reference: Tensor | Reference,
        held_out: Tensor | None = None,
        threshold: float = SIMILAR,
        space: FeatureSpace | None = None,
        **kwargs: Any,
    ) -> None:
        if not -1 < threshold < 1:
            raise UserError(f"threshold={threshold:g} must be between -1 and 1.", "Pass, for example, threshold=0.5")
        rows = reference.rows(0, len(reference)) if isinstance(reference, Reference) else reference
        super().__init__(Reference(_directions(rows)), held_out, space, ("cosine", "nearest"), **kwargs)
        self.threshold = threshold

    @cached_property
    def train_cosine(self) -> Tensor:
        """``[<= 2000]`` cosines of training images, evenly spaced, with their nearest other one."""
        step = -(-len(self.reference) // OTHERS)
        few = torch.arange(0, len(self.reference), step)
        return _cosine(nearest(self.reference.take(few), self.reference, 2)[0][:, 1]).cpu()

    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """``cosine [B]``, the largest with a training image, and ``nearest [B]``, the index of that one."""
        distances, index = nearest(_directions(x), self.reference, 1)
        return {"cosine": _cosine(distances[:, 0]), "nearest": index[:, 0]}

    def copied(self, columns: Columns) -> Tensor:
        return columns["cosine"] > self.threshold

    def value(self, columns: Columns) -> Interval:
        return share(self.copied(columns))

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        cosine = columns["cosine"].double()
        numbers = super().summarize(columns) | quantiles(cosine, "cosine", 0.75, 0.9, 0.95)
        numbers |= {
            "cosine_mean": float(cosine.mean()),
            f"cosine_over_{PRECISE}": float((cosine > PRECISE).double().mean()),
        }
        return numbers if len(self.reference) < 2 else numbers | {"cosine_train_mean": float(self.train_cosine.mean())}


def _directions(rows: Tensor) -> Tensor:
    """``[n, D]`` float32 of length 1 from ``[n, ...]``."""
    rows = rows.flatten(1).float()
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    if not (norms > 0).all():
        row = int((norms > 0).int().argmin())
        raise UserError(f"Descriptor {row} has length {float(norms[row]):g}, so no direction.", "Leave it out.")
    return rows / norms[:, None].float()


def _cosine(distance: Tensor) -> Tensor:
    """Of directions at this distance: ``1 - d^2 / 2``, exact where they are alike."""
    return (1 - distance.double().square() / 2).float()
