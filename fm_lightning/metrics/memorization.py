"""Memorization: which samples are copies of training images (arXiv 2602.07928, section on F_mem)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.intervals import Change, Influence, paired_share_change, wilson
from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, nearest_distinct
from fm_lightning.metrics.neighbours.reference import Divided, Reference
from fm_lightning.metrics.per_seed import Columns, PairedMetric, check_same_seeds, fingerprint, sample_tensor
from fm_lightning.trajectory import Trajectory

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MemorizationRate(PairedMetric):
    """F_mem: the share of samples with ``d1 / d2 < threshold``, or ``d1 = 0``.

    ``d1`` and ``d2`` are the Euclidean distances to the nearest and the second nearest training image, in the model's own
    space, unclipped. ``measure`` gives ``d1`` ... ``dk``, the distances to the k nearest, and ``nearest``, the index of the
    nearest, all ``[B]``. ``summarize`` returns ``f_mem`` with its 95 % Wilson interval ``f_mem_lo``, ``f_mem_hi``, the shares
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
            are one image; or such ``Groups``, found already. ``summarize`` then also returns their number, ``near_duplicates``:
            images that another one stands for. ``nearest`` then names the image that stands for them.
        k: above 2, ``summarize`` also returns ``f_mem_k`` and ``nn_ratio_k_median``, with the k-th nearest image instead of
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

    def __init__(
        self,
        reference: Tensor | Reference | Divided,
        threshold: float = 1 / 3,
        mirrored: bool = False,
        leave_out_duplicates: float | Groups | None = None,
        k: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__((*(f"d{i}" for i in range(1, k + 1)), "nearest"), **kwargs)
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

    @property
    def fingerprint(self) -> str:
        groups = None if self.groups is None else self.groups.leader.numpy().tobytes()
        return fingerprint(self.reference.fingerprint, self.k, self.mirrored, groups)

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        distances, index = self.neighbours(sample_tensor(samples))
        found = index[:, 0]
        if self.groups is not None:
            found = self.groups.leader.to(found.device)[found]
        return {f"d{i + 1}": d for i, d in enumerate(distances.unbind(1))} | {"nearest": found}

    def summarize(self, columns: Columns) -> dict[str, float]:
        numbers = copy_shares(columns, self.threshold, self.k)
        if self.groups is not None:
            numbers["near_duplicates"] = float(self.groups.near_duplicates)
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
