"""Metadata files of image folders, by the convention of `datasets`: one row per image, named by ``file_name``.

    FOLDER/metadata.csv        file_name,label      or .jsonl, or .parquet; names are relative to where the file lies
                               cats/0001.png,cat

``label`` holds classes, and so does any other column that ``label_column`` names. Directories are then not classes but the
column ``directory``. `datasets` itself leaves out images without a row, takes one image twice, and reads 007 as 7.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fm_lightning.errors import UserError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
Row = Mapping[str, Any]
_RENAME = "or rename the file to leave it out."


def read_metadata(folder: Path, images: Sequence[Path], files: Sequence[Path]) -> dict[str, Row]:
    """Returns the row of each image of a folder by its normalized path; nothing if there are no metadata files.

    Raises:
        UserError: a file that cannot be read or names no images, or an image that is missing, named twice or not named.
    """
    there = {os.path.normpath(folder / image) for image in images}
    found: dict[str, Row] = {}
    for file in files:
        for number, row in enumerate(_rows(folder / file)):
            name = row.get("file_name")
            path = os.path.normpath(folder / file.parent / str(name))
            if path not in there or path in found:
                what = "an earlier row names it too" if path in found else "there is no such image"
                raise UserError(
                    f"Row {number} of {folder / file} names {name!r}, but {what}.", f"Correct the row, {_RENAME}"
                )
            found[path] = {column: value for column, value in row.items() if column != "file_name"}
    if files and (missing := sorted(there - found.keys())):
        raise UserError(
            f"{folder / files[0]} has no row for {len(missing):,} of {len(there):,} images, for example {missing[0]}.",
            f"Add the rows, remove the images, {_RENAME}",
        )
    return found


def metadata_columns(rows: Sequence[Row], names: Sequence[str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Returns values and types of a split's columns, with ``label`` as ClassLabel of ``names`` if there are any.

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
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The metadata column {column!r} mixes types ({reason}).", f"Write one type, {_RENAME}"
            ) from error
    return columns, features


def label_names(rows: Sequence[Row]) -> set[str]:
    """Returns the classes in the column ``label``; none if it holds anything but words, whole numbers and booleans."""
    values = [row["label"] for row in rows if row.get("label") is not None]
    return {str(value) for value in values} if all(isinstance(value, str | int) for value in values) else set()


def _rows(file: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    read = {".csv": _read_csv, ".jsonl": _read_lines, ".parquet": lambda file: parquet.read_table(file).to_pylist()}
    try:
        rows = read[file.suffix.lower()](file)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Cannot read {file}: {reason}.", f"Correct it, {_RENAME}") from error
    columns = dict.fromkeys(column for row in rows for column in row)
    # `image` is the column of the images themselves.
    if "file_name" not in columns or "image" in columns:
        raise UserError(
            f"{file} needs a column file_name and none called image, but has {', '.join(columns) or 'no columns'}.",
            f"Rename its columns, {_RENAME}",
        )
    return rows


def _read_lines(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text("utf-8-sig").split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows


def _read_csv(file: Path) -> list[dict[str, Any]]:
    """Reads whole numbers as text, so that 007 is not 7, and empty cells as None."""
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
    """Converts cells to floating-point numbers if all are numbers and not all are whole."""
    try:
        numbers = [None if cell is None else float(cell) for cell in cells]
    except ValueError:
        return cells
    return cells if all(cell is None or cell.lstrip("+-").isdecimal() for cell in cells) else numbers
