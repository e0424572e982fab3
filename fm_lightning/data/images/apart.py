"""Held-out images are other files than those trained on or compared with, whatever links and lists call them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.rows import Rows
from fm_lightning.errors import OldError


def refuse_shared_files(rows: Mapping[str, Rows], column: str, held_out: Part, others: Sequence[Part]) -> None:
    """Raises UserError if an image file of ``held_out`` is one of the others', too: linked, or in a folder given twice.

    Parts of one split that share rows are refused before; rows of a table are no files.
    """
    if rows[held_out.split].content is not None:
        return
    known = dict(_files(rows[held_out.split], column, held_out))
    for part in dict.fromkeys(others):
        if rows[part.split].content is None:
            for file, path in _files(rows[part.split], column, part):
                if file in known:
                    same = path if path == known[file] else f"{path}, which is the same file as {known[file]},"
                    raise OldError(
                        f"{same} given in {part} and held out in {held_out}",
                        "images neither trained on nor compared with",
                        "keep one of the two, or choose other parts",
                    )


def _files(rows: Rows, column: str, part: Part) -> Iterator[tuple[tuple[int, int], str]]:
    from datasets import Image

    encoded = rows.dataset.select_columns([column]).cast_column(column, Image(decode=False))
    for value in encoded[part.start : part.stop][column]:
        try:
            stat = os.stat(value["path"])
        except (OSError, TypeError, ValueError):  # decoding will say so
            continue
        yield (stat.st_dev, stat.st_ino), value["path"]
