"""Memorization: which samples are copies of training images (arXiv 2602.07928, section on F_mem)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate, share, share_change, wilson
from fm_lightning.files import read_json, write_json
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, joined, nearest_distinct
from fm_lightning.metrics.neighbours.reference import AbstractReference, Reference, check_unit
from fm_lightning.metrics.per_seed import PerSeedMetric, check_same_seeds, sample_tensor
from fm_lightning.phrases import counted
from fm_lightning.trajectory import Trajectory

THRESHOLD = 1 / 3  # of the ratio d1 / d2, arXiv 2602.07928
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MemorizationRate(PerSeedMetric):
    """F_mem: the share of samples with ``d1 / d2 < threshold``, or ``d1 = 0``.

    ``d1`` and ``d2`` are the Euclidean distances to the nearest and the second nearest training image, in the model's own
    space, unclipped. ``measure`` gives ``d1`` ... ``dk``, the distances to the k nearest, and ``nearest``, the index of the
    nearest, all ``[B]``. ``summarize`` returns ``f_mem`` with its 95% Wilson interval ``f_mem_lo``, ``f_mem_hi``, the shares
    ``f_mem_at_0.1`` ... ``f_mem_at_0.5``, and ``nn_ratio_median``; with ``base`` also the change of F_mem and
    ``escaped_same_nn``, see ``escaped_same_nearest``.

    Training images that are equal byte for byte (with ``mirrored`` also mirror images of each other) count as one image:
    otherwise ``d1`` and ``d2`` would be equal for every copy of them. If there are any, ``summarize`` returns their number,
    ``exact_duplicates``: the images that equal an earlier one.

    Two things it cannot see. A copy of an image that has near-duplicates is not counted, for the same reason:
    ``leave_out_duplicates`` counts near-duplicates as one image, so that ``d2`` is the distance to a different one, and ``k``
    adds ``d1 / dk``, which only k or more similar images can hide. Neither finds duplicates that pixels do not show:
    shifted, scaled or recoloured ones. And a little noise on a copy crosses the threshold, although it remains a copy; the
    controls measure that.

    Args:
        reference: ``[n, ...]`` exactly the training images that the model saw, or a prepared ``Reference`` of them. With a
            ``ShardedReference``, making the metric and each ``update`` are collective: every process calls ``update`` equally
            often, with an empty batch where it has no samples.
        threshold: in (0, 1].
        mirrored: whether a copy of an image's mirror image is a copy of the image. Image and mirror image then count as one,
            so that the two nearest are always different images.
        leave_out_duplicates: training images nearer to each other than this share of the median nearest-neighbour distance
            count as one image; or such ``Groups``, found before. ``summarize`` then also returns their number,
            ``near_duplicates``: the images that another one represents, equal ones included. ``nearest`` is the index of the
            image that represents its group.
        views: ``[n]`` int64, the row of which each row is another view (the latent of its mirror image), its own index where it
            is none. Views of an image are that image, and no duplicates.
        k: above 2, ``summarize`` also returns ``f_mem_k`` and ``nn_ratio_k_median``, with the k-th nearest image instead of
            the second. By construction ``f_mem_k >= f_mem``.
        say: receives one line about equal and one about similar training images.

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

    name = "neighbours"
    key = "f_mem"

    def __init__(
        self,
        reference: Tensor | Reference | AbstractReference,
        threshold: float = THRESHOLD,
        mirrored: bool = False,
        leave_out_duplicates: float | Groups | None = None,
        k: int = 2,
        views: Tensor | None = None,
        say: Callable[[str], None] = lambda line: None,
        **kwargs: Any,
    ) -> None:
        self._begin(threshold, k, **kwargs)
        if len(reference) < 2:
            raise UserError(
                f"{counted(len(reference), 'training image')} is too few for a ratio of distances.", "Pass at least 2."
            )
        self.reference = reference if isinstance(reference, Reference | AbstractReference) else Reference(reference)
        self.collective = isinstance(self.reference, AbstractReference)
        self.mirrored = mirrored
        shape = list(self.reference.shape[1:])
        if mirrored and len(shape) != 3:
            raise UserError(f"Samples of shape {shape} have no mirror images.", "Pass mirrored=False.")
        rows = torch.arange(len(self.reference))
        images = rows == (rows if views is None else views)
        self.images = int(images.sum())  # the other rows are views of these
        first = self.reference.exact_duplicates(mirrored)
        if views is not None:
            first = joined(first, views)
        self.exact_duplicates = int((first != rows)[images].sum())
        if self.images - self.exact_duplicates < 2:
            raise UserError(f"The {self.images} training images are all equal.", "Pass at least 2 different ones.")
        self.groups = self._groups(first, leave_out_duplicates, views is not None, say)
        self.near_duplicates = None if leave_out_duplicates is None else int((self.groups.leader != rows)[images].sum())
        if not 2 <= k <= self.groups.count:
            raise UserError(
                f"k={k} must be from 2 to {self.groups.count}, the number of different training images.",
                "Pass k=2, or a smaller leave_out_duplicates.",
            )
        self._count(say)

    def _begin(self, threshold: float, k: int, **kwargs: Any) -> None:
        """What summaries read, and no reference."""
        super().__init__((*(f"d{i}" for i in range(1, k + 1)), "nearest"), **kwargs)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise UserError(f"threshold={threshold!r} must be above 0 and at most 1.", "Pass, for example, 1/3.")
        self.threshold, self.k = threshold, k
        self.duplicates: dict[str, float] = {}

    def _count(self, say: Callable[[str], None]) -> None:
        if self.near_duplicates is not None:
            say(
                f"{self.near_duplicates:,} of {self.images:,} training images are near-duplicates of others "
                f"(nearer than {self.groups.distance:.4g}) and count as one with them"
            )
            self.duplicates["near_duplicates"] = float(self.near_duplicates)
        if self.exact_duplicates:
            twins = " or mirror images of others" if self.mirrored else ""
            say(
                f"{self.exact_duplicates:,} of {self.images:,} training images equal others{twins} and count as one with them"
            )
            self.duplicates["exact_duplicates"] = float(self.exact_duplicates)

    def _groups(self, first: Tensor, given: float | Groups | None, viewed: bool, say: Callable[[str], None]) -> Groups:
        """Which images count as one: equal ones, and near-duplicates if they are to be left out."""
        if given is None:
            return Groups(first, 0.0)
        if isinstance(given, Groups):
            # Equal images are one, also where each is a near-duplicate of another image.
            # Views of one image may be near-duplicates of different ones, which are then one, too.
            return replace(given, leader=joined(given.leader, first) if viewed else given.leader[first])
        if isinstance(self.reference, AbstractReference):
            raise UserError(
                "Near-duplicates cannot be found in a reference that is divided among processes.",
                "Pass the Groups that find_groups finds in the whole reference.",
            )
        return self._groups(first, find_groups(self.reference, given, mirrored=self.mirrored, say=say), viewed, say)

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: the distances ``[B, k]`` to the nearest training images, and their indices."""
        groups = self.groups if self.groups.near_duplicates else None
        return nearest_distinct(x, self.reference, self.k, mirrored=self.mirrored, groups=groups)

    @property
    def fingerprint(self) -> str:
        groups = hashlib.sha256(self.groups.leader.numpy().tobytes()).hexdigest()
        return text_hash(self.reference.fingerprint, self.k, self.mirrored, groups)

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        x = sample_tensor(samples)
        check_unit(x, self.reference)
        distances, index = self.neighbours(x)
        found = self.groups.leader.to(index.device)[index[:, 0]]
        return {f"d{i + 1}": d for i, d in enumerate(distances.unbind(1))} | {"nearest": found}

    def closest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: d1 / d2 ``[B]``, and the index of the nearest training image ``[B]``."""
        columns = self.measure(x)
        return ratio(columns), columns["nearest"]

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        numbers = copy_shares(columns, self.threshold, self.k) | self.duplicates
        if base is not None:
            numbers["escaped_same_nn"] = escaped_same_nearest(columns, base, self.threshold)
        return self.with_change(numbers, columns, base)

    def estimate(self, columns: Columns) -> Estimate:
        """F_mem with its Wilson interval, and what each sample contributes to it."""
        return share(copied(columns, self.threshold).numpy())

    def change(self, here: Columns, there: Columns) -> Estimate:
        """F_mem here minus F_mem there, over the same seeds line by line; the interval is that of ``share_change``."""
        return _share_change(here, there, self.threshold)

    def changes(self, here: Columns, there: Columns) -> dict[str, Estimate]:
        """The changes of F_mem at this threshold and at the others."""
        others = {f"f_mem_at_{t}": _share_change(here, there, t) for t in THRESHOLDS}
        return super().changes(here, there) | others

    def facts(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def remember(self, folder: Path) -> None:
        write_json(_file(folder, self.fingerprint), self.duplicates)

    @classmethod
    def recalled(cls, folder: Path, fingerprint: str, **options: Any) -> MemorizationRate:
        """From the numbers of duplicates in ``folder``; options: threshold, k.

        Raises:
            FileNotFoundError: they are not there.
            DamagedFile: they are not what was written.
        """
        metric = cls.__new__(cls)
        metric._begin(**{"threshold": THRESHOLD, "k": 2, **options})
        metric.duplicates = read_json(_file(folder, fingerprint), "Compare again.")
        return metric


def _file(folder: Path, fingerprint: str) -> Path:
    return folder / f"{MemorizationRate.name}-{fingerprint}.json"


def ratio(columns: Columns, k: int = 2) -> Tensor:
    """``[n]`` d1 / dk; 0 / 0, for a copy of an image whose k nearest images all equal it, is 0."""
    d1 = columns["d1"]
    return torch.where(d1 == 0, 0.0, d1 / columns[f"d{k}"])


def copied(columns: Columns, threshold: float = THRESHOLD) -> Tensor:
    """``[n]`` bool: which samples are copies."""
    return ratio(columns) < threshold


def _share_change(here: Columns, there: Columns, threshold: float) -> Estimate:
    check_same_seeds(here, there)
    after, before = (copied(columns, threshold) for columns in (here, there))
    difference = float(after.double().mean() - before.double().mean())
    return replace(share_change(after.numpy(), before.numpy()), value=difference)


def escaped_same_nearest(here: Columns, base: Columns, threshold: float = THRESHOLD) -> float:
    """Of the samples that are copies under ``base`` and not here, the share whose nearest training image is the same.

    Near 1, the schedule moved copies away from their images without making other images of them. NaN if none escaped.
    """
    check_same_seeds(here, base)
    escaped = copied(base, threshold) & ~copied(here, threshold)
    same = (here["nearest"] == base["nearest"])[escaped]
    return float(same.double().mean()) if len(same) else float("nan")


def most_copied(columns: Columns, threshold: float = THRESHOLD, count: int = 10) -> tuple[Tensor, Tensor]:
    """Indices and counts, ``[<= count]`` each, of the training images with the most copies among the samples."""
    index, counts = columns["nearest"][copied(columns, threshold)].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:count]
    return index[order], counts[order]


def copy_shares(columns: Columns, threshold: float = THRESHOLD, k: int = 2) -> dict[str, float]:
    """The shares of copies among samples with distances ``d1`` ... ``dk``; needs no reference."""
    second = ratio(columns)
    n, hits = len(second), int((second < threshold).sum())
    low, high = wilson(hits, n)
    numbers = {"f_mem": hits / n, "f_mem_lo": low, "f_mem_hi": high, "nn_ratio_median": float(second.median())}
    numbers |= {f"f_mem_at_{t}": float((second < t).double().mean()) for t in THRESHOLDS}
    if k > 2:
        last = ratio(columns, k)
        numbers |= {"f_mem_k": float((last < threshold).double().mean()), "nn_ratio_k_median": float(last.median())}
    return numbers
