"""Memorization: which samples are copies of training images (arXiv 2602.07928, section on F_mem)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.metrics.intervals import Change, Influence, paired_share_change, wilson
from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, joined, nearest_distinct
from fm_lightning.metrics.neighbours.reference import AbstractReference, Reference, check_unit
from fm_lightning.metrics.per_seed import Columns, PairedMetric, check_same_seeds, fingerprint, sample_tensor
from fm_lightning.trajectory import Trajectory

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MemorizationRate(PairedMetric):
    """F_mem: the share of samples with ``d1 / d2 < threshold``, or ``d1 = 0``.

    ``d1`` and ``d2`` are the Euclidean distances to the nearest and the second nearest training image, in the model's own
    space, unclipped. ``measure`` gives ``d1`` ... ``dk``, the distances to the k nearest, and ``nearest``, the index of the
    nearest, all ``[B]``. ``summarize`` returns ``f_mem`` with its 95 % Wilson interval ``f_mem_lo``, ``f_mem_hi``, the shares
    ``f_mem_at_0.1`` ... ``f_mem_at_0.5``, and ``nn_ratio_median``.

    Training images that are equal byte for byte (with ``mirrored`` also mirror images of each other) are one image: otherwise
    ``d1`` and ``d2`` were alike for every copy of them. Where there are any, ``summarize`` returns their number,
    ``exact_duplicates``: images that an earlier one stands for.

    Two things it cannot see. A copy of an image that has near-duplicates is not counted for the same reason:
    ``leave_out_duplicates`` counts near-duplicates as one image, so that ``d2`` is the distance to another one, and ``k`` puts
    ``d1 / dk`` beside it, fooled only by k or more images that are alike. Neither sees duplicates that pixels do not show:
    shifted, scaled or recoloured ones. And a little noise on a copy crosses the threshold without un-copying it; that is what
    the controls are for.

    Args:
        reference: ``[n, ...]`` exactly the training images that the model saw, or a prepared ``Reference`` of them. With a
            ``ShardedReference`` every process has to call ``update`` equally often, with an empty batch where it has no
            samples (as this package's callbacks do): one that calls it once more waits for the others. Making the metric is
            then collective, too.
        threshold: in (0, 1].
        mirrored: a copy of an image's mirror image is a copy of the image. Image and mirror image are one, so that the two
            nearest are always different images.
        leave_out_duplicates: training images nearer to each other than this share of the median nearest-neighbour distance
            are one image; or such ``Groups``, found already. ``summarize`` then also returns their number, ``near_duplicates``:
            images that another one stands for, equal ones included. ``nearest`` names the image that stands for the others.
        views: ``[n]`` int64, the row of which each row is another view (the latent of its mirror image), its own index where it
            is none. Views of an image are that image, and no duplicates.
        k: above 2, ``summarize`` also returns ``f_mem_k`` and ``nn_ratio_k_median``, with the k-th nearest image instead of
            the second. By construction ``f_mem_k >= f_mem``.

    Raises:
        UserError: fewer than two different training images, or an argument out of range.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import EmpiricalVelocity, integrate
        >>> data = torch.randn(10, 3)
        >>> metric = MemorizationRate(data)
        >>> metric.update(integrate(EmpiricalVelocity(data), torch.randn(50, 3)))
        >>> metric.compute()["f_mem"]
        1.0
    """

    def __init__(
        self,
        reference: Tensor | Reference | AbstractReference,
        threshold: float = 1 / 3,
        mirrored: bool = False,
        leave_out_duplicates: float | Groups | None = None,
        k: int = 2,
        views: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__((*(f"d{i}" for i in range(1, k + 1)), "nearest"), **kwargs)
        if not 0 < threshold <= 1:
            raise OldError(f"threshold={threshold:g} given", "above 0 and at most 1", "give e.g. 1/3")
        if len(reference) < 2:
            raise OldError(f"{len(reference)} training images given", "at least 2", "give a larger reference")
        self.reference = reference if isinstance(reference, Reference | AbstractReference) else Reference(reference)
        self.threshold, self.mirrored, self.k = threshold, mirrored, k
        shape = list(self.reference.shape[1:])
        if mirrored and len(shape) != 3:
            raise OldError(f"mirrored=True given for samples {shape}", "images [C, H, W]", "give mirrored=False")
        rows = torch.arange(len(self.reference))
        images = rows == (rows if views is None else views)
        self.images = int(images.sum())  # beside which the others are views
        first = self.reference.exact_duplicates(mirrored)
        if views is not None:
            first = joined(first, views)
        self.exact_duplicates = int((first != rows)[images].sum())
        if self.images - self.exact_duplicates < 2:
            raise OldError(
                f"{self.images} training images given, all equal",
                "at least 2 different ones",
                "give a larger reference",
            )
        self.groups = self._groups(first, leave_out_duplicates, views is not None)
        self.near_duplicates = None if leave_out_duplicates is None else int((self.groups.leader != rows)[images].sum())
        if not 2 <= k <= self.groups.count:
            raise OldError(
                f"k={k} given",
                f"2 to {self.groups.count}, the number of different training images",
                "give e.g. k=2, or a smaller leave_out_duplicates",
            )

    def _groups(self, first: Tensor, given: float | Groups | None, viewed: bool) -> Groups:
        """Which images count as one: those that are equal, and near-duplicates where they are asked for."""
        if given is None:
            return Groups(first, 0.0)
        if isinstance(given, Groups):
            # Equal images are one, also where each is a near-duplicate of another image.
            # Views of one image may be near-duplicates of different ones, which are then one, too.
            return replace(given, leader=joined(given.leader, first) if viewed else given.leader[first])
        if isinstance(self.reference, AbstractReference):
            raise OldError(
                f"leave_out_duplicates={given:g} given with a reference divided among processes",
                "Groups",
                "find them with find_groups where the whole reference can be read",
            )
        return self._groups(first, find_groups(self.reference, given, mirrored=self.mirrored), viewed)

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: the distances ``[B, k]`` to the nearest training images, and their indices."""
        groups = self.groups if self.groups.near_duplicates else None
        return nearest_distinct(x, self.reference, self.k, mirrored=self.mirrored, groups=groups)

    @property
    def fingerprint(self) -> str:
        groups = hashlib.sha256(self.groups.leader.numpy().tobytes()).hexdigest()
        return fingerprint(self.reference.fingerprint, self.k, self.mirrored, groups)

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        x = sample_tensor(samples)
        check_unit(x, self.reference)
        distances, index = self.neighbours(x)
        found = self.groups.leader.to(index.device)[index[:, 0]]
        return {f"d{i + 1}": d for i, d in enumerate(distances.unbind(1))} | {"nearest": found}

    def summarize(self, columns: Columns) -> dict[str, float]:
        numbers = copy_shares(columns, self.threshold, self.k)
        if self.exact_duplicates:
            numbers["exact_duplicates"] = float(self.exact_duplicates)
        if self.near_duplicates is not None:
            numbers["near_duplicates"] = float(self.near_duplicates)
        return numbers

    def influence(self, columns: Columns) -> Influence:
        """F_mem, and what each sample contributes to it."""
        hits = copied(columns, self.threshold).double()
        return Influence(float(hits.mean()), hits - hits.mean())

    def change(self, here: Columns, there: Columns) -> Change:
        """F_mem here minus F_mem there, over the same seeds line by line, with the paired 95 % interval."""
        check_same_seeds(here, there)
        return paired_share_change(copied(here, self.threshold), copied(there, self.threshold))


def ratio(columns: Columns, k: int = 2) -> Tensor:
    """``[n]`` d1 / dk; 0 / 0, a copy of an image whose k nearest images are all like it, is 0."""
    d1 = columns["d1"]
    return torch.where(d1 == 0, 0.0, d1 / columns[f"d{k}"])


def copied(columns: Columns, threshold: float = 1 / 3) -> Tensor:
    """``[n]`` bool: which samples are copies."""
    return ratio(columns) < threshold


def escaped_same_nearest(here: Columns, base: Columns, threshold: float = 1 / 3) -> float:
    """Of the samples that are copies under ``base`` and not here, the share with the same nearest training image.

    Near 1, the schedule moved copies away from their images without making other images of them. NaN if none escaped.
    """
    check_same_seeds(here, base)
    escaped = copied(base, threshold) & ~copied(here, threshold)
    same = (here["nearest"] == base["nearest"])[escaped]
    return float(same.double().mean()) if len(same) else float("nan")


def most_copied(columns: Columns, threshold: float = 1 / 3, count: int = 10) -> tuple[Tensor, Tensor]:
    """Indices and counts, ``[<= count]`` each, of the training images with the most copies among the samples."""
    index, counts = columns["nearest"][copied(columns, threshold)].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:count]
    return index[order], counts[order]


def copy_shares(columns: Columns, threshold: float = 1 / 3, k: int = 2) -> dict[str, float]:
    """What ``MemorizationRate`` says of samples with distances ``d1`` ... ``dk`` or more, with no reference at hand."""
    second = ratio(columns)
    n, hits = len(second), int((second < threshold).sum())
    low, high = wilson(hits, n)
    numbers = {"f_mem": hits / n, "f_mem_lo": low, "f_mem_hi": high, "nn_ratio_median": float(second.median())}
    numbers |= {f"f_mem_at_{t}": float((second < t).double().mean()) for t in THRESHOLDS}
    if k > 2:
        last = ratio(columns, k)
        numbers |= {"f_mem_k": float((last < threshold).double().mean()), "nn_ratio_k_median": float(last.median())}
    return numbers
