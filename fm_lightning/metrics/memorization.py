"""Memorization: which samples are copies of training images (arXiv 2602.07928, section on F_mem)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.intervals import Change, paired_share_change, wilson
from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, nearest_distinct
from fm_lightning.metrics.neighbours.reference import Divided, Reference
from fm_lightning.metrics.per_seed import PairedMetric
from fm_lightning.trajectory import Trajectory

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MemorizationRate(PairedMetric):
    """F_mem: the share of samples with ``d1 / d2 < threshold``, or ``d1 = 0``.

    ``d1`` and ``d2`` are the Euclidean distances to the nearest and the second nearest training image, in the model's own
    space, unclipped. ``compute`` returns ``f_mem`` with its 95 % Wilson interval ``f_mem_lo``, ``f_mem_hi``, the shares
    ``f_mem_at_0.1`` ... ``f_mem_at_0.5``, and ``nn_ratio_median``.

    Two things it cannot see. Where the training set holds near-duplicates ``d1`` and ``d2`` are alike and a copy of them is
    not counted: ``leave_out_duplicates`` counts near-duplicates as one image, so that ``d2`` is the distance to another one,
    and ``k`` puts ``d1 / dk`` beside it, fooled only by k or more images that are alike. Neither sees duplicates that pixels
    do not show: shifted, scaled or recoloured ones. And a little noise on a copy crosses the threshold without un-copying
    it; that is what the controls are for.

    Args:
        reference: ``[n, ...]`` exactly the training images that the model saw, or a prepared ``Reference`` of them. With a
            ``ShardedReference`` every process has to call ``update`` equally often, with an empty batch where it has no
            samples (as this package's callbacks do): one that calls it once more waits for the others.
        threshold: in (0, 1].
        mirrored: a copy of an image's mirror image is a copy of the image. Image and mirror image are one, so that the two
            nearest are always different images.
        leave_out_duplicates: training images nearer to each other than this share of the median nearest-neighbour distance
            are one image; or such ``Groups``, found already. ``compute`` then also returns their number, ``near_duplicates``:
            images that another one stands for. ``nearest`` then names the image that stands for them.
        k: above 2, ``compute`` also returns ``f_mem_k`` and ``nn_ratio_k_median``, with the k-th nearest image instead of
            the second. By construction ``f_mem_k >= f_mem``.

    Raises:
        UserError: fewer than two training images (k, if they are to be different), or an argument out of range.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import EmpiricalVelocity, integrate
        >>> data = torch.randn(10, 3)
        >>> metric = MemorizationRate(data)
        >>> metric.update(integrate(EmpiricalVelocity(data), torch.randn(50, 3)))
        >>> metric.compute()["f_mem"]
        1.0
    """

    columns = ("ratio", "ratio_k", "nearest")

    def __init__(
        self,
        reference: Tensor | Reference | Divided,
        threshold: float = 1 / 3,
        mirrored: bool = False,
        leave_out_duplicates: float | Groups | None = None,
        k: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(reference) < 2:
            raise UserError(
                f"memorization against {len(reference)} training images asked for, expected at least the 2 nearest; "
                "type a larger training subset, e.g. --data.init_args.n 100"
            )
        if not 0 < threshold <= 1:
            raise UserError(f"threshold={threshold:g} given, expected above 0 and at most 1; type e.g. 0.3333")
        self.reference = reference if isinstance(reference, Reference | Divided) else Reference(reference)
        self.threshold, self.mirrored, self.k = threshold, mirrored, k
        given = leave_out_duplicates
        if given is None or isinstance(given, Groups):
            self.groups = given
        elif isinstance(self.reference, Divided):
            raise UserError(
                f"leave_out_duplicates={given:g} given with a reference divided among processes, expected Groups; find them "
                "with find_groups where the whole reference can be read"
            )
        else:
            self.groups = find_groups(self.reference, given, mirrored=mirrored)
        different = len(reference) - (self.groups.near_duplicates if self.groups else 0)
        if not 2 <= k <= different:
            raise UserError(
                f"k={k} given, expected 2 to {different}, the number of different training images; type e.g. k: 2, or a smaller "
                "leave_out_duplicates"
            )

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: the distances ``[B, k]`` to the nearest training images, and their indices."""
        return nearest_distinct(x, self.reference, self.k, mirrored=self.mirrored, groups=self.groups)

    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of samples."""
        distances, index = self.neighbours(trajectory.x1.to(self.device))
        found = index[:, 0]
        if self.groups is not None:
            found = self.groups.leader.to(found.device)[found]
        self.append(trajectory, ratio=ratios(distances, 2), ratio_k=ratios(distances, self.k), nearest=found)

    def compute(self) -> dict[str, float]:
        rows = self.local()
        ratio = rows["ratio"]
        n, hits = len(ratio), int((ratio < self.threshold).sum())
        low, high = wilson(hits, n)
        shares = {f"f_mem_at_{t}": float((ratio < t).double().mean()) for t in THRESHOLDS}
        more: dict[str, float] = {}
        if self.k > 2:
            more["f_mem_k"] = float((rows["ratio_k"] < self.threshold).double().mean())
            more["nn_ratio_k_median"] = float(rows["ratio_k"].median())
        if self.groups is not None:
            more["near_duplicates"] = float(self.groups.near_duplicates)
        middle = float(ratio.median())
        return {"f_mem": hits / n, "f_mem_lo": low, "f_mem_hi": high, "nn_ratio_median": middle} | shares | more

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


def ratios(distances: Tensor, k: int) -> Tensor:
    """``[B]`` d1 / dk from ascending distances; 0 / 0 is a copy of an image that stands twice in the training set."""
    return torch.where(distances[:, 0] == 0, 0.0, distances[:, 0] / distances[:, k - 1])
