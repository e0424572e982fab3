"""The rows of a split in the order in which they are served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fm_lightning.data.images.columns import countable_columns, known_label_column, read_labels
from fm_lightning.data.images.source import Opened
from fm_lightning.data.order import in_random_order, stratified_order

if TYPE_CHECKING:
    from datasets import Dataset

Order = Literal["auto", "source", "random"]


@dataclass(frozen=True)
class Rows:
    """A split, served.

    Attributes:
        dataset: the rows in that order.
        content: as for ``Opened``.
        source: ``[n]`` the source's row at each place; None: its own order.
    """

    dataset: Dataset
    content: str | None
    source: np.ndarray | None

    def source_row(self, place: int) -> int:
        return place if self.source is None else int(self.source[place])


def arrange(opened: Opened, label_column: str | None, order: Order) -> Rows:
    """Keeps a random order, and draws a fixed one, class by class alike, where the source's own is not random.

    An order is not random if it is that of file names, or if a column of classes, whole numbers, words or booleans stands in
    runs along it (see ``in_random_order``).

    Args:
        opened: the split in the source's own order.
        label_column: what the rows are classed by; None: the first column of type ClassLabel, if any.
        order: "source" keeps the source's own order, "random" never.
    """
    dataset = opened.dataset
    keep = order == "source" or (order == "auto" and not opened.listed and _random(dataset))
    if keep:
        return Rows(dataset, opened.content, None)
    column = known_label_column(dataset, label_column)
    labels = None if column is None else read_labels(dataset, column).codes
    source = stratified_order(labels, len(dataset))
    return Rows(dataset.select(source), opened.content, source)


def _random(dataset: Dataset) -> bool:
    return all(in_random_order(read_labels(dataset, column).codes) for column in countable_columns(dataset))
