"""Memorization: which samples are copies of training images (arXiv 2602.07928, section on F_mem)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.intervals import Change, paired_share_change, wilson
from fm_lightning.metrics.neighbours import nearest
from fm_lightning.metrics.per_seed import PairedMetric
from fm_lightning.metrics.reference import Reference
from fm_lightning.trajectory import Trajectory

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MemorizationRate(PairedMetric):
    """F_mem: the share of samples with ``d1 / d2 < threshold``, or ``d1 = 0``.

    ``d1`` and ``d2`` are the Euclidean distances to the nearest and the second nearest training image, in the model's own
    space, unclipped. ``compute`` returns ``f_mem`` with its 95 % Wilson interval ``f_mem_lo``, ``f_mem_hi``, the shares
    ``f_mem_at_0.1`` ... ``f_mem_at_0.5``, and ``nn_ratio_median``.

    Two things it cannot see: where the training set holds near-duplicates ``d1`` and ``d2`` are alike and a copy is not
    counted; and a little noise on a copy crosses the threshold without un-copying it.

    Args:
        reference: ``[n, ...]`` exactly the training images that the model saw, or a prepared ``Reference`` of them.
        threshold: in (0, 1].

    Raises:
        UserError: fewer than two training images, or a threshold out of range.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import EmpiricalVelocity, integrate
        >>> data = torch.randn(10, 3)
        >>> metric = MemorizationRate(data)
        >>> metric.update(integrate(EmpiricalVelocity(data), torch.randn(50, 3)))
        >>> metric.compute()["f_mem"]
        1.0
    """

    columns = ("ratio", "nearest")

    def __init__(self, reference: Tensor | Reference, threshold: float = 1 / 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(reference) < 2:
            raise UserError(
                f"memorization against {len(reference)} training images asked for, expected at least the 2 nearest; "
                "type a larger training subset, e.g. --data.init_args.n 100"
            )
        if not 0 < threshold <= 1:
            raise UserError(f"threshold={threshold:g} given, expected above 0 and at most 1; type e.g. 0.3333")
        self.reference, self.threshold = reference, threshold

    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of samples."""
        distances, index = nearest(trajectory.x1.to(self.device), self.reference, k=2)
        # 0 / 0 is a copy of an image that stands twice in the training set.
        ratio = torch.where(distances[:, 0] == 0, 0.0, distances[:, 0] / distances[:, 1])
        self.append(trajectory, ratio=ratio, nearest=index[:, 0])

    def compute(self) -> dict[str, float]:
        ratio = self.local()["ratio"]
        n, hits = len(ratio), int((ratio < self.threshold).sum())
        low, high = wilson(hits, n)
        shares = {f"f_mem_at_{t}": float((ratio < t).double().mean()) for t in THRESHOLDS}
        return {"f_mem": hits / n, "f_mem_lo": low, "f_mem_hi": high, "nn_ratio_median": float(ratio.median())} | shares

    def change(self, other: MemorizationRate) -> Change:
        """F_mem here minus F_mem there, over the same seeds, with the paired 95 % interval."""
        here, there = self.same_seeds(other)
        return paired_share_change(here["ratio"] < self.threshold, there["ratio"] < self.threshold)

    def escaped_same_nearest(self, base: MemorizationRate) -> float:
        """Of the samples that are copies under ``base`` and not here, the share with the same nearest training image.

        Near 1, the schedule moved copies away from their images without making other images of them. NaN if none escaped.
        """
        here, there = self.same_seeds(base)
        escaped = (there["ratio"] < self.threshold) & (here["ratio"] >= self.threshold)
        same = (here["nearest"] == there["nearest"])[escaped]
        return float(same.double().mean()) if len(same) else float("nan")

    def most_copied(self, k: int) -> tuple[Tensor, Tensor]:
        """Indices and counts, ``[<= k]`` each, of the training images with the most copies among the samples."""
        rows = self.per_seed()
        index, counts = rows["nearest"][rows["ratio"] < self.threshold].unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:k]
        return index[order], counts[order]
