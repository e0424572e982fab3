"""Files that are written whole or not at all, and that say when they are no longer what was written.

write_whole(path, content)   bytes or text          replacing(path)    anything that writes a file itself
write_json, read_json        with a checksum inside; plain, typed: dataclasses as JSON, and back
write_arrays, read_arrays    a zip archive (.npz), whose own checksums are verified
check_archive                any other zip archive, such as a checkpoint
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import secrets
import types
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval

BLOCK = 1 << 20  # bytes read at a time
SUM = "crc32"  # of a JSON file, in the file
DAMAGED = "the file is damaged, its checksum does not match"
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError)
AGAIN = "Delete it and run the same command again."


class DamagedFile(UserError):
    """A file that is not what was written: a disk, a copy or an editor changed it.

    Args:
        path: the file.
        reason: what is wrong with it.
        fix: a sentence.
    """

    def __init__(self, path: str | os.PathLike[str], reason: object, fix: str = AGAIN) -> None:
        self.reason = " ".join(str(reason).split()) or type(reason).__name__
        super().__init__(f"Cannot read {path}: {self.reason.rstrip('.')}.", fix)


@contextmanager
def refusing(path: Path, fix: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Errors of these kinds, in reading a file that exists, as a ``DamagedFile``."""
    try:
        yield
    except FileNotFoundError:
        raise
    except kinds as error:
        raise DamagedFile(path, error, fix) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which takes the place of ``path`` at the end of the block.

    Readers see the old file or the new one, also after a kill, a full disk or a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> Path:
    """Writes a file whole or not at all; text is UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_text(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; None is empty."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def csv_table(lines: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> str:
    """Lines as CSV: the named columns, then those of the lines in the order in which they first occur."""
    found = list(lines)
    text = io.StringIO(newline="")
    names = dict.fromkeys([*columns, *(name for line in found for name in line)])
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    for line in found:
        writer.writerow({name: csv_text(value) for name, value in line.items()})
    return text.getvalue()


def create(path: Path, content: str) -> bool:
    """Writes a file whole, unless there is one: of several processes exactly one succeeds.

    Returns:
        whether this process wrote it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # also unlike that of another machine
    try:
        temporary.write_text(content)
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot do it for folders
            raise
    finally:
        os.close(handle)


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes; 4 GB a second from memory."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found = zlib.crc32(block, found)
    return found


# JSON


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Writes a JSON object whole or not at all, with the checksum of what it says under ``crc32``."""
    sealed = {**value, SUM: json_sum(value)}
    return write_whole(path, json.dumps(sealed, indent=1, ensure_ascii=False))


def read_json(path: Path, fix: str = AGAIN) -> dict[str, Any]:
    """What ``write_json`` wrote.

    Args:
        path: the file.
        fix: what the user can do if it is damaged; a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is no JSON object, or not the one that was written.
    """
    with refusing(path, fix, (OSError, ValueError, RecursionError)):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise DamagedFile(path, "it holds no JSON object", fix)
    if SUM not in found:
        raise DamagedFile(path, "it has no checksum, so this version did not write it", fix)
    if found.pop(SUM) != json_sum(found):
        raise DamagedFile(path, DAMAGED, fix)
    return found


def json_sum(value: Mapping[str, Any]) -> int:
    """CRC-32 of a JSON object: of its numbers and strings as they come back from a file, in any order of the keys."""
    return zlib.crc32(json.dumps(json.loads(json.dumps(value)), sort_keys=True).encode())


def plain(value: Any) -> Any:
    """A value of dataclasses as plain data for JSON; what is not a finite number is None."""
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _fields(kind: type) -> dict[str, Any]:
    """Name -> type of a class's fields; evaluating annotations is slow, so once for each class."""
    return get_type_hints(kind)


def typed(kind: Any, value: Any) -> Any:
    """Plain data as a value of that type; a number that may be missing is None where it is not finite."""
    inner = get_args(kind)
    if get_origin(kind) is types.UnionType:
        found = None if value is None else typed(next(each for each in inner if each is not type(None)), value)
        return None if isinstance(found, float) and not math.isfinite(found) else found
    if dataclasses.is_dataclass(kind):
        types_ = _fields(kind)  # type: ignore[arg-type]
        return kind(**{name: typed(types_[name], part) for name, part in value.items() if name in types_})  # type: ignore[operator]
    if kind is Interval:
        return Interval(*(typed(float, part) for part in value))
    if get_origin(kind) is tuple:
        return tuple(typed(inner[0], part) for part in value)
    if get_origin(kind) in (dict, Mapping):
        return {name: typed(inner[1], part) for name, part in (value or {}).items()}
    if kind is float:
        return math.nan if value is None else float(value)
    return value


# Arrays and other zip archives


def write_arrays(path: Path, arrays: Mapping[str, Any], compressed: bool = False) -> Path:
    """Writes arrays as .npz, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        # NumPy appends .npz to a name, but not to a file.
        (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)
    return path


def compact(values: np.ndarray) -> np.ndarray:
    """Wide vectors ``[n, ...]`` as float16 where they fit: a Fréchet distance of 2,048 features changes by 1e-6 relative."""
    wide = values.ndim > 1 and int(np.prod(values.shape[1:])) > 256 and values.dtype.kind == "f"
    return values.astype(np.float16) if wide and float(np.abs(values).max(initial=0)) <= 6e4 else values


def read_arrays(path: Path, fix: str = AGAIN) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, each verified by its checksum.

    Args:
        path: the file.
        fix: what the user can do if it is damaged; a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is no such archive, or not the one that was written.
    """
    with refusing(path, fix, (*UNREADABLE, KeyError, SyntaxError, MemoryError)):
        _check_members(path)
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}


def check_archive(path: Path, fix: str = AGAIN) -> None:
    """Reads a zip archive once and compares every member with its checksum.

    Args:
        path: the file.
        fix: what the user can do if it is damaged; a sentence.

    Raises:
        DamagedFile: names the first member that differs.
    """
    with refusing(path, fix, UNREADABLE):
        _check_members(path)
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    if bad is not None:
        raise DamagedFile(path, f"{DAMAGED} ({bad})", fix)


def _check_members(path: Path) -> None:
    """A changed length or name in the directory of a zip hides a member; its last 22 bytes tell how many there are."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        file.seek(-22, os.SEEK_END)
        end = file.read()
        total = int.from_bytes(end[10:12], "little")
        if end.startswith(b"PK\x05\x06") and total not in (0xFFFF, len(set(archive.namelist()))):
            raise zipfile.BadZipFile(DAMAGED)
