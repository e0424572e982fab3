"""The encoded images of a part of a dataset: as bytes, as PIL images, and as a hash of all of them.

Rows of a table may name files, and a table may come from anyone: files outside the source are refused without any access.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow.compute as pc

from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.preprocessing import read_image
from fm_lightning.data.images.rows import Rows
from fm_lightning.errors import UserError

BLOCK = 512  # images read at a time
_IN_ZIP = re.compile(r"zip://(?P<inner>.+?)::(?P<file>.+)")  # what `datasets` calls a file in a local archive


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded."""

    place: int  # in its split, as served
    row: int  # in its split, in the source's order
    file: str
    reason: str


class EncodedImages:
    """The encoded images of a part.

    Raises:
        UserError: a column without encoded images.
    """

    def __init__(self, rows: Rows, column: str, part: Part) -> None:
        from datasets import Image, Value

        self.rows, self.column, self.part = rows, column, part
        feature = rows.dataset.features[column]
        # Of numbers `datasets` would turn 300 into 44, and guess the channels' axis.
        if not isinstance(feature, Image | Value | dict):
            raise UserError(
                f"Column {column!r} holds {type(feature).__name__}, not encoded images.",
                "Write arrays as PNG, or set image_column: NAME",
            )
        try:
            self.encoded = rows.dataset.select_columns([column]).cast_column(column, Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"Column {column!r} holds no encoded images ({str(error).splitlines()[0]}).", "Set image_column: NAME"
            ) from error

    def blocks(self) -> Iterator[tuple[int, list[Any]]]:
        """(place, values) of some images at a time."""
        for start in range(self.part.start, self.part.stop, BLOCK):
            yield start, self.encoded[start : min(start + BLOCK, self.part.stop)][self.column]

    def read(self, place: int, value: Any) -> Any:
        """Returns a PIL image, or the reason why it cannot be read."""
        try:
            if value is None or (value["bytes"] is None and value["path"] is None):
                return "no image in this row"
            return read_image(self.encoded_bytes(place, value), self.name(place, value))
        except UserError:
            raise
        except Exception as error:  # decoders raise exceptions of any type
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    def encoded_bytes(self, place: int, value: Any) -> bytes:
        """Returns the bytes of an image file.

        Raises:
            UserError: a row of a table names an address, or a file outside the source.
        """
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        places = self.rows.opened.places
        found = read_inside(value["path"], places) if places else Path(value["path"]).read_bytes()
        if found is None:
            raise UserError(
                f"Image {self.name(place, value)} is not inside the source {places[0]}.",
                "Store the images in the table, or below this folder.",
            )
        return found

    def name(self, place: int, value: Any = None) -> str:
        """Returns the name of an image in messages."""
        row = f"index {self.rows.source_row(place)} of {self.part.split}"
        file = (value or self.encoded[place][self.column] or {}).get("path")
        return f"{row}, {file}" if file else row

    def unreadable(self, at: int, reason: str) -> Unreadable:
        """Describes the part's image number ``at``."""
        place = self.part.start + at
        return Unreadable(place, self.rows.source_row(place), self.name(place), reason)

    def content(self) -> str:
        """Returns a hash of the part's images."""
        content, order = self.rows.opened.content, self.rows.source
        if content is not None and not self._name_files():
            places = None if order is None else order[self.part.start : self.part.stop].tobytes()
            return repr((content, self.column, self.part, places and hashlib.sha256(places).hexdigest()))
        found = hashlib.sha256()
        with ThreadPoolExecutor(threads()) as pool:
            for start, values in self.blocks():
                for digest in pool.map(self._digest, range(start, start + len(values)), values):
                    found.update(digest)
        return found.hexdigest()

    def _name_files(self) -> bool:
        """Whether some rows of a table name a file in place of holding its bytes."""
        for chunk in self.encoded.data.column(self.column).chunks:
            nothing, named = (pc.struct_field(chunk, name) for name in ("bytes", "path"))
            if pc.any(pc.and_(pc.is_null(nothing), pc.is_valid(named))).as_py():
                return True
        return False

    def _digest(self, place: int, value: Any) -> bytes:
        if value is None or (value["bytes"] is None and value["path"] is None):
            return bytes(32)
        try:
            return hashlib.sha256(self.encoded_bytes(place, value)).digest()
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:  # once repaired, it is another file
            return hashlib.sha256(repr(error).encode()).digest()


def threads() -> int:
    """How many threads read and decode."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def read_inside(written: str, places: Sequence[Path]) -> bytes | None:
    """Reads the file that a row names; None if it is not inside one of the directories.

    Args:
        written: the name in the row: relative to the first directory, or absolute; or a file in a zip archive.
        places: directories. Links inside them count as the files that they lead to.
    """
    match = _IN_ZIP.fullmatch(written)
    file = _inside(match["file"] if match else written, places)
    if file is None or match is None:
        return None if file is None else file.read_bytes()
    changed = file.stat()
    return _archive(file, changed.st_mtime_ns, changed.st_size).read(match["inner"])


def _inside(written: str, places: Sequence[Path]) -> Path | None:
    if "://" in written or "::" in written or written.startswith(("\\\\", "//")) or "\0" in written:
        return None
    file = (places[0] / written).resolve()
    return file if any(file.is_relative_to(place.resolve()) for place in places) else None


@lru_cache(maxsize=8)
def _archive(file: Path, changed: int, size: int) -> ZipFile:
    return ZipFile(file)  # its directory is read once, not for every image
