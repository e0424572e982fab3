"""Images decoded once: a part of a dataset as one uint8 array on disk, mapped into memory by every process.

    CACHE/KEY/images.npy   [N, C, H, W] uint8; an image that could not be read is black
    CACHE/KEY/record.json  what was decoded, which images could not be read, and the checksum of images.npy
    CACHE/KEY.lock         held by the process that decodes

KEY is a hash of the rows and of the preprocessing. Image files are read and hashed at each start, because ``rsync -t``,
``git checkout`` and ``unzip`` can change the pixels of a file and keep its size and time.
The first process decodes into a temporary directory and renames it; others wait for the lock. Processes of one machine share
the mapped pages.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fm_lightning.data.images.encoded import BLOCK, EncodedImages, Unreadable, threads
from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.preprocessing import Preprocessing, is_gray
from fm_lightning.data.images.rows import Rows
from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, checksum, read_json, sync, write_json
from fm_lightning.hashes import text_hash

VERSION = 3  # of the cached files
RECORD = "record.json"
VERIFIED = 4 << 30  # bytes that are verified at each start, in a second; larger ones only with FM_LIGHTNING_VERIFY=1


@dataclass(frozen=True)
class Decoded:
    """Images ``[N, C, H, W]`` uint8 of a part, and those that could not be read, which are black."""

    images: Tensor
    unreadable: list[Unreadable]


def cache_directory(given: str | None) -> Path:
    """Returns the given directory, else $FM_LIGHTNING_CACHE, else ~/.cache/fm_lightning."""
    return Path(given or os.environ.get("FM_LIGHTNING_CACHE") or "~/.cache/fm_lightning").expanduser() / "images"


def decoded(rows: Rows, column: str, part: Part, preprocessing: Preprocessing, cache: Path) -> Decoded:
    """Returns the images of a part from the cache, decoding them first if needed.

    Raises:
        UserError: no permission or no room in the cache, no readable image, images of different sizes or unfit for the
            preprocessing, or rows that name files outside the source.
    """
    files = EncodedImages(rows, column, part)
    key = text_hash(VERSION, files.content(), preprocessing, digits=24)
    place = cache / key
    if _damage(place):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{key}.lock"):
                if place.exists() and (damage := _damage(place)):  # another process may have repaired it
                    print(f"The image cache {place} is damaged ({damage}). It is decoded again.", flush=True)
                    shutil.rmtree(place)
                if not place.exists():
                    _fill(place, files, preprocessing)
        except OSError as error:
            raise UserError(
                f"Cannot write the image cache {cache}: {error.strerror or error}.",
                "Set cache_dir: DIRECTORY, or the variable FM_LIGHTNING_CACHE",
            ) from error
    record = read_json(place / RECORD)
    # Copy on write: torch warns about read-only arrays.
    images = torch.from_numpy(np.load(place / "images.npy", mmap_mode="c"))
    # Equal images may have been decoded earlier for other rows.
    return Decoded(images, [files.unreadable(at, reason) for at, reason in record["unreadable"]])


def _damage(place: Path) -> str | None:
    """What is wrong with a cached part; None where it is whole."""
    array = place / "images.npy"
    try:
        record = read_json(place / RECORD)
        if array.stat().st_size != record["bytes"]:
            return f"images.npy has {array.stat().st_size:,} bytes instead of {record['bytes']:,}"
        if record["bytes"] <= VERIFIED or os.environ.get("FM_LIGHTNING_VERIFY"):
            return None if checksum(array) == record["checksum"] else "the checksum of images.npy does not match"
    except DamagedFile as error:
        return f"{RECORD}: {error.reason}"
    except OSError as error:
        return str(error)
    return None


def _fill(place: Path, files: EncodedImages, preprocessing: Preprocessing) -> None:
    for left in place.parent.glob(f"{place.name}.*.tmp"):  # of a killed process: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        record = {
            "part": asdict(files.part),
            "preprocessing": asdict(preprocessing),
            "unreadable": _write(temporary / "images.npy", files, preprocessing),
        }
        array = temporary / "images.npy"
        sync(array)
        write_json(temporary / RECORD, record | {"bytes": array.stat().st_size, "checksum": checksum(array)})
        temporary.chmod(0o755)  # other users read a shared cache
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, files: EncodedImages, preprocessing: Preprocessing) -> list[tuple[int, str]]:
    """Writes the array block by block; writing to mapped memory would kill the process on a full disk.

    Returns:
        (number in the part, reason) of the images that could not be read.
    """
    part = files.part
    pairs = ((start + i, value) for start, values in files.blocks() for i, value in enumerate(values))
    first = next(((at, image) for at, value in pairs if not isinstance(image := files.read(at, value), str)), None)
    if first is None:
        reason = files.read(part.start, files.encoded[part.start][files.column])
        raise UserError(
            f"None of the {len(part):,} images of {part.split} can be read ({reason}).",
            "Set another source."
            if files.rows.opened.content is None
            else "Set image_column: NAME, or another source.",
        )
    mixed = preprocessing.grayscale is None and is_gray(first[1])
    if preprocessing.grayscale is None:
        preprocessing = replace(preprocessing, grayscale=mixed)

    def prepared(image: Any, place: int, value: Any = None) -> np.ndarray:
        try:
            return preprocessing(image)
        except UserError as error:
            raise UserError(f"Image {files.name(place, value)}: {error.problem}", error.fix) from error

    shape = prepared(first[1], first[0]).shape

    def pixels(row: tuple[int, Any]) -> np.ndarray | str:
        place, value = row
        image = files.read(place, value)
        if isinstance(image, str):
            return image
        if mixed and not is_gray(image):
            raise UserError(
                f"Image {files.name(place, value)} has colours, and {files.name(first[0])} has none.",
                "Set grayscale: false, or true",
            )
        array = prepared(image, place, value)
        if array.shape != shape:
            raise UserError(
                f"Image {files.name(place, value)} is {array.shape[2]}x{array.shape[1]}, and {files.name(first[0])} is "
                f"{shape[2]}x{shape[1]}.",
                "Set for example resize: 32 and crop: 32",
            )
        return array

    unreadable: list[tuple[int, str]] = []
    black = np.zeros(shape, np.uint8)
    with open(file, "wb") as out, ThreadPoolExecutor(threads()) as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(part), *shape)}
        np.lib.format.write_array_header_1_0(out, header)
        for start, values in _shown(files):
            # Few large tasks: for small images a queue costs more than decoding.
            tasks = [list(enumerate(values[i : i + 32], start + i)) for i in range(0, len(values), 32)]
            for task, done in zip(tasks, pool.map(lambda rows: [pixels(row) for row in rows], tasks)):
                unreadable += [(row[0] - part.start, entry) for row, entry in zip(task, done) if isinstance(entry, str)]
                out.write(np.stack([black if isinstance(entry, str) else entry for entry in done]).tobytes())
    return unreadable


def _shown(files: EncodedImages) -> Iterator[tuple[int, list[Any]]]:
    from rich.console import Console
    from rich.progress import track

    title = f"Decoding {len(files.part):,} images of {files.part.split}, once"
    blocks = -(-len(files.part) // BLOCK)
    yield from track(files.blocks(), title, total=blocks, console=Console(stderr=True))
