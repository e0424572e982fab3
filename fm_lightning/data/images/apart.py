"""Held-out images must not be the files that are trained on or compared with, under any name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.rows import Rows
from fm_lightning.errors import UserError


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
