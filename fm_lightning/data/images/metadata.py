"""What a metadata file says of a folder's images, by the convention of `datasets`: one row an image, named by ``file_name``.

    FOLDER/metadata.csv        file_name,label      or .jsonl, or .parquet; names are relative to where the file lies
                               cats/0001.png,cat

Its columns go with the images. ``label`` holds classes, any other column does where ``label_column`` names it. Directories
are then no classes by themselves, but the column ``directory``: of two answers none is picked silently.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fm_lightning.errors import OldError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
Row = Mapping[str, Any]


def read_metadata(folder: Path, images: Sequence[Path], files: Sequence[Path]) -> dict[str, Row]:
    """Row by normalized path, for each image of a folder; nothing where there are no metadata files.

    Raises:
        UserError: a file that cannot be read or names no images, an image that is not there, named twice or not named.
    """
    there = {os.path.normpath(folder / image) for image in images}
    found: dict[str, Row] = {}
    for file in files:
        for number, row in enumerate(_rows(folder / file)):
            name = row.get("file_name")
            path = os.path.normpath(folder / file.parent / str(name))
            if path not in there or path in found:
                what = "which an earlier row names, too" if path in found else "which is no image there"
                raise OldError(
                    f"{folder / file} given, whose row {number} names {name!r}, {what}",
                    "one row for each image",
                    "mend it, or rename the file to leave it out",
                )
            found[path] = {column: value for column, value in row.items() if column != "file_name"}
    if files and (missing := sorted(there - found.keys())):
        raise OldError(
            f"{folder / files[0]} given, which does not name {missing[0]} ({len(missing):,} of {len(there):,} images)",
            "one row for each image",
            "add them or take them away, or rename the file to leave it out",
        )
    return found


def metadata_columns(rows: Sequence[Row], names: Sequence[str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Values and types of a split's columns, with ``label`` as ClassLabel of ``names`` where these are given.

    Raises:
        UserError: values of several kinds in one column.
    """
    import pyarrow as pa
    from datasets import ClassLabel, Dataset

    columns = {column: [row.get(column) for row in rows] for column in dict.fromkeys(c for row in rows for c in row)}
    features: dict[str, Any] = {}
    for column, values in columns.items():
        if column == "label" and names:
            columns[column] = [None if value is None else str(value) for value in values]
            features[column] = ClassLabel(names=list(names))
            continue
        try:
            features[column] = Dataset.from_dict({column: values}).features[column]
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise OldError(
                f"metadata given, whose column {column!r} holds values of several kinds ({str(error).splitlines()[0]})",
                "one kind",
                "mend it, or rename the file to leave it out",
            ) from error
    return columns, features


def label_names(rows: Sequence[Row]) -> set[str]:
    """The classes in the column ``label``; none where it holds anything but words, whole numbers and booleans."""
    values = [row["label"] for row in rows if row.get("label") is not None]
    return {str(value) for value in values} if all(isinstance(value, str | int) for value in values) else set()


def _rows(file: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    read = {".csv": _read_csv, ".jsonl": _read_lines, ".parquet": lambda file: parquet.read_table(file).to_pylist()}
    try:
        rows = read[file.suffix.lower()](file)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise OldError(
            f"{file} given, which cannot be read ({' '.join(str(error).split())[:200]})",
            "a table with a column file_name",
            "mend it, or rename it to leave it out",
        ) from error
    columns = dict.fromkeys(column for row in rows for column in row)
    # `image` holds the images themselves.
    if "file_name" not in columns or "image" in columns:
        raise OldError(
            f"{file} given, with the columns {', '.join(columns) or 'none'}",
            "file_name, which says what image a row belongs to, and none called image",
            "rename its columns, or the file to leave it out",
        )
    return rows


def _read_lines(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text("utf-8-sig").split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return rows


def _read_csv(file: Path) -> list[dict[str, Any]]:
    """Whole numbers stay text, so that 007 is no 7; an empty cell is none."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header, *lines = [line for line in csv.reader(stream, strict=True) if line] or [[]]
    if len(set(header)) < len(header) or any(len(line) != len(header) for line in lines):
        raise ValueError("a column named twice, or a row with more or fewer cells than columns")
    columns = [
        _typed([cell or None for cell in column]) if name != "file_name" else column
        for name, column in zip(header, zip(*lines))
    ]
    return [dict(zip(header, row)) for row in zip(*columns)]


def _typed(cells: list[str | None]) -> list[Any]:
    """Floating-point numbers where all cells are numbers and not all of them whole."""
    try:
        numbers = [None if cell is None else float(cell) for cell in cells]
    except ValueError:
        return cells
    return cells if all(cell is None or cell.lstrip("+-").isdecimal() for cell in cells) else numbers
