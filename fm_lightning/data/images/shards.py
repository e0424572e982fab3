"""Parquet files of one split must agree: `datasets` silently reads all of them by the columns and classes of the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fm_lightning.data.images.folder import FILES
from fm_lightning.errors import UserError

_FIX = "Rewrite the files alike, or set " + FILES


def check_shards(files: Sequence[Path]) -> None:
    """Raises UserError if a file has columns that the first one lacks, or numbers its classes differently."""
    from datasets import ClassLabel, Features
    from pyarrow import parquet

    try:
        found = [Features.from_arrow_schema(parquet.read_schema(file)) for file in files]
    except Exception:  # reading the file reports what is wrong
        return
    for file, features in zip(files, found):
        if more := features.keys() - found[0].keys():
            raise UserError(f"{file} has the column {min(more)}, and {files[0].name} does not.", _FIX)
        for column, feature in features.items():
            first = found[0][column]
            if isinstance(feature, ClassLabel) and isinstance(first, ClassLabel) and feature.names != first.names:
                raise UserError(f"{file} numbers the classes in {column} differently from {files[0].name}.", _FIX)
