"""The data-copying test C_T (Meehan, Chaudhuri and Dasgupta 2020, arXiv 2004.05675)."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from fm_lightning.diagnosis.association.roc import placements
from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure
from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate, Interval
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest


class DataCopying(CopyMeasure):
    """``c_t``: are samples nearer to the training images than held-out ones are? Well below 0 is copying.

    In each k-means cell of the training set the distances d1 to the cell's nearest training image, of n samples and of m held-out
    ones, are compared by Mann and Whitney's U (how often a sample's is the larger, ties count half):

        Z = (U - (n m / 2 - 1/2)) / sqrt(n m (n + m + 1) / 12)

    C_T averages Z over the cells with more than ``least`` samples, weighted by the held-out share. Z is standard normal for
    samples like the held-out ones; the 95% interval of C_T takes DeLong's variance of U in each cell. ``summarize`` adds the
    share of samples in cells that count, ``c_t_covered``; where it is 0 there is no C_T. The floor compares the held-out samples'
    first half with their second, where both are large enough.

    Args:
        reference: ``[n, ...]`` training images or their features (dgm-eval first reduces them to 64 principal components;
            we do not).
        held_out: ``[m, ...]`` real images, some in each cell.
        cells: the number k of k-means cells.
        least: cells with more samples than this count; 20 as in the authors' code.

    Raises:
        UserError: no held-out samples, or a cell without any.
    """

    column_names = ("d1_cell", "cell")
    name = "data_copying"
    label = "C_T"
    unit = "z"
    key = "c_t"
    lower_is_copying = True

    def __init__(
        self,
        reference: Tensor | Reference,
        held_out: Tensor,
        cells: int = 3,
        least: int = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(reference, held_out, **kwargs)
        if held_out is None:
            raise UserError("C_T compares samples with held-out ones.", "Pass held_out.")
        if not 1 <= cells <= len(self.reference):
            raise UserError(
                f"cells={cells} must be between 1 and the {len(self.reference):,} training images.",
                f"Pass, for example, cells={min(3, len(self.reference))}",
            )
        self.cells, self.least = cells, least
        rows = self.reference.rows(0, len(self.reference)).float().cpu()
        self._kmeans = KMeans(cells, n_init=10, random_state=0).fit(rows.numpy())
        labels = torch.from_numpy(self._kmeans.labels_)
        self._parts = [Reference(rows[labels == cell].to(self.reference.device)) for cell in range(cells)]

    @property
    def fingerprint(self) -> str:
        return text_hash(super().fingerprint, self.cells)

    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """``cell [B]`` and ``d1_cell [B]``, the distance to the nearest training image in it."""
        found = self._kmeans.predict(x.float().cpu().numpy()) if len(x) else np.empty(0, np.int64)
        cell = torch.from_numpy(found).long().to(x.device)
        d1 = torch.empty(len(x), device=x.device)
        for number, part in enumerate(self._parts):
            here = cell == number
            d1[here] = nearest(x[here], part, 1)[0][:, 0]
        return {"d1_cell": d1, "cell": cell}

    def value(self, columns: Columns) -> Interval:
        return self._compare(columns, self._held_out)

    @property
    def floor(self) -> Interval | None:
        columns = self._held_out
        half = len(columns["cell"]) // 2
        first, second = ({name: v[rows] for name, v in columns.items()} for rows in (slice(half), slice(half, None)))
        counts = (torch.bincount(side["cell"], minlength=self.cells) for side in (first, second))
        few, enough = (int(c.min()) for c in counts)
        return self._compare(first, second) if few > self.least and enough else None

    def copied(self, columns: Columns) -> Tensor:
        """Nearer to the cell's training images than the nearest 1% of held-out ones in it: C_T itself judges sets alone."""
        held = self._held_out
        limit = torch.stack(
            [torch.quantile(held["d1_cell"][held["cell"] == c].double(), 0.01) for c in range(self.cells)]
        )
        return columns["d1_cell"].double() < limit[columns["cell"]]

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        counts = torch.bincount(columns["cell"], minlength=self.cells)
        covered = counts[counts > self.least].sum() / len(columns["cell"])
        if not covered:
            return {"c_t_covered": 0.0}
        return super().summarize(columns) | {"c_t_covered": float(covered)}

    @cached_property
    def _held_out(self) -> dict[str, Tensor]:
        columns = self.held_out_columns
        assert columns is not None
        empty = (columns["cell"].bincount(minlength=self.cells) == 0).nonzero()
        if len(empty):
            raise UserError(
                f"Cell {int(empty[0])} of {self.cells} has no held-out samples.", "Pass more of them, or fewer cells."
            )
        return columns

    def _compare(self, columns: Columns, held: Columns) -> Interval:
        total = weight = variance = 0.0
        for cell in range(self.cells):
            ours = columns["d1_cell"][columns["cell"] == cell].double().numpy()
            theirs = held["d1_cell"][held["cell"] == cell].double().numpy()
            if len(ours) <= self.least:
                continue
            z, se = mann_whitney_z(ours, theirs)
            total += len(theirs) * z
            weight += len(theirs)
            variance += (len(theirs) * se) ** 2
        if not weight:
            raise UserError(
                f"No cell of {self.cells} has more than {self.least} samples.",
                "Use more seeds, or pass a smaller `least`.",
            )
        return Interval(*Estimate(total / weight, math.sqrt(variance) / weight))


def mann_whitney_z(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Meehan's Z of distances ``[n]`` against ``[m]``, and its standard error by DeLong's variance."""
    n, m = len(ours), len(theirs)
    scale = math.sqrt(n * m * (n + m + 1) / 12)
    area, of_ours, of_theirs = placements(np.concatenate([ours, theirs]), np.arange(n + m) < n)
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25 for part in (of_ours, of_theirs))
    return float((n * m * area - (n * m / 2 - 0.5)) / scale), n * m * math.sqrt(variance) / scale
