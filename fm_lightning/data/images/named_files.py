"""Files that the rows of a table name: inside the source, or refused without any access. A table may come from anyone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

_IN_ZIP = re.compile(r"zip://(?P<inner>.+?)::(?P<file>.+)")  # what `datasets` calls a file in a local archive


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
