"""Rows of a split in the order in which they are served; held-out rows are not those that are trained on or compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fm_lightning.data.images.columns import countable_columns, known_label_column, read_labels
from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.source import Opened
from fm_lightning.data.order import in_random_order, stratified_order
from fm_lightning.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Order = Literal["auto", "source", "random"]


@dataclass(frozen=True)
class Rows:
    """Rows of a split in the order in which they are served.

    Attributes:
        dataset: the rows in that order.
        opened: the split in the source's order.
        source: ``[n]`` int64, the source's row at each place; None for the source's own order.
    """

    dataset: Dataset
    opened: Opened
    source: np.ndarray | None

    def source_row(self, place: int) -> int:
        return place if self.source is None else int(self.source[place])


def arrange(opened: Opened, label_column: str | None, order: Order) -> Rows:
    """Keeps the source's order if it is random, and draws a fixed stratified order otherwise.

    An order is not random if it is the order of file names, or if a column of classes, whole numbers, words or booleans has
    runs of equal values (see ``in_random_order``).

    Args:
        opened: the split in the source's own order.
        label_column: the column of classes; None for the first column of type ClassLabel, if any.
        order: "source" always keeps the source's order, "random" never does.
    """
    dataset = opened.dataset
    if order == "source" or (order == "auto" and not opened.listed and _random(dataset)):
        return Rows(dataset, opened, None)
    column = known_label_column(dataset, label_column)
    labels = None if column is None else read_labels(dataset, column).codes
    source = stratified_order(labels, len(dataset))
    return Rows(dataset.select(source), opened, source)


def _random(dataset: Dataset) -> bool:
    return all(in_random_order(read_labels(dataset, column).codes) for column in countable_columns(dataset))


def refuse_shared_files(rows: Mapping[str, Rows], column: str, held_out: Part, others: Sequence[Part]) -> None:
    """Raises UserError if an image file of ``held_out`` also belongs to another part: by a link, or in a folder given twice.

    Parts of one split that share rows are refused earlier. Equal images in different files are counted, not refused.
    """
    if rows[held_out.split].opened.content is not None:
        return
    known = dict(_files(rows[held_out.split], column, held_out))
    for part in dict.fromkeys(others):
        if rows[part.split].opened.content is None:
            for file, path in _files(rows[part.split], column, part):
                if file in known:
                    same = path if path == known[file] else f"{path} (the same file as {known[file]})"
                    raise UserError(
                        f"{same} is in {part} and held out in {held_out}.", "Remove one of them, or choose other parts."
                    )


def _files(rows: Rows, column: str, part: Part) -> Iterator[tuple[tuple[int, int], str]]:
    from datasets import Image

    encoded = rows.dataset.select_columns([column]).cast_column(column, Image(decode=False))
    for value in encoded[part.start : part.stop][column]:
        try:
            stat = os.stat(value["path"])
        except (OSError, TypeError, ValueError):  # decoding reports it
            continue
        yield (stat.st_dev, stat.st_ino), value["path"]
