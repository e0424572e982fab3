"""Parquet files of one split agree: `datasets` reads all of them by the first one's columns and class names, unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fm_lightning.errors import OldError


def check_shards(files: Sequence[Path]) -> None:
    """Raises UserError if a file has columns that the first one lacks, or other names for the numbers of its classes."""
    from datasets import ClassLabel, Features
    from pyarrow import parquet

    try:
        found = [Features.from_arrow_schema(parquet.read_schema(file)) for file in files]
    except Exception:  # whatever is wrong with a file, reading it says so
        return
    for file, features in zip(files, found):
        if more := features.keys() - found[0].keys():
            raise OldError(
                f"{file} given, whose column {min(more)} {files[0].name} lacks",
                "files of one split with the same columns",
                "write them anew, or type files per split, source: {train: ..., test: ...}",
            )
        for column, feature in features.items():
            first = found[0][column]
            if isinstance(feature, ClassLabel) and isinstance(first, ClassLabel) and feature.names != first.names:
                raise OldError(
                    f"{file} given, where the numbers in {column} stand for other classes than in {files[0].name}",
                    "files of one split with the same class names in the same order",
                    "write them anew, or type files per split, source: {train: ..., test: ...}",
                )
