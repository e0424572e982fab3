"""Images decoded once: a part of a dataset as one uint8 array on disk, mapped into memory by every process.

    CACHE/KEY/images.npy   [N, C, H, W] uint8; an image that could not be read is black
    CACHE/KEY/record.json  what was decoded, and which images could not be read
    CACHE/KEY.lock         held by the process that decodes

KEY names the dataset's fingerprint, the rows and the preprocessing. Who comes first decodes into a temporary directory and
renames it; who comes meanwhile waits for the lock and finds it done. Processes of one machine share the mapped pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fm_lightning.data.images.parts import Part
from fm_lightning.data.images.preprocessing import Preprocessing, is_gray
from fm_lightning.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1  # of what lies in the cache
BLOCK = 512  # images decoded at a time


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded."""

    index: int  # in its split
    file: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """Images ``[N, C, H, W]`` uint8 of a part, and which of them are black because they could not be read."""

    images: Tensor
    unreadable: list[Unreadable]


def cache_directory(given: str | None) -> Path:
    """As given, else $FM_LIGHTNING_CACHE, else ~/.cache/fm_lightning."""
    return Path(given or os.environ.get("FM_LIGHTNING_CACHE") or "~/.cache/fm_lightning").expanduser() / "images"


def decoded(dataset: Dataset, column: str, part: Part, preprocessing: Preprocessing, cache: Path) -> Decoded:
    """The images of a part, from the cache, or decoded into it.

    Raises:
        UserError: no permission or no room in the cache, not one image can be read, images of different sizes, or images
            that the preprocessing does not fit.
    """
    key = hashlib.sha256(repr((VERSION, dataset._fingerprint, column, part, preprocessing)).encode()).hexdigest()[:24]
    place = cache / key
    if not place.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{key}.lock"):
                if not place.exists():
                    _fill(place, dataset, column, part, preprocessing)
        except OSError as error:
            raise UserError(
                f"the image cache {cache} cannot be written ({error.strerror or error}), expected a directory with room and "
                "permission to write; type --data.init_args.cache_dir DIRECTORY, or set FM_LIGHTNING_CACHE"
            ) from error
    record = json.loads((place / "record.json").read_text())
    # Copy on write: torch refuses arrays that it may not write to; nobody writes.
    images = torch.from_numpy(np.load(place / "images.npy", mmap_mode="c"))
    return Decoded(images, [Unreadable(**entry) for entry in record["unreadable"]])


def _fill(place: Path, dataset: Dataset, column: str, part: Part, preprocessing: Preprocessing) -> None:
    for left in place.parent.glob(f"{place.name}.*.tmp"):  # by a process that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        unreadable = _write(temporary / "images.npy", dataset, column, part, preprocessing)
        record = {
            "part": asdict(part),
            "preprocessing": asdict(preprocessing),
            "fingerprint": dataset._fingerprint,
            "unreadable": [asdict(entry) for entry in unreadable],
        }
        (temporary / "record.json").write_text(json.dumps(record, indent=1))
        temporary.chmod(0o755)  # a shared cache is read by others, too
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, dataset: Dataset, column: str, part: Part, preprocessing: Preprocessing) -> list[Unreadable]:
    """Writes the array in order, without ever holding it: mapped memory would die, not complain, on a full disk."""
    from datasets import Image

    try:
        encoded = dataset.select_columns([column]).cast_column(column, Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"column {column!r} given, which holds no encoded images ({str(error).splitlines()[0]}), expected image files; type "
            "--data.init_args.image_column NAME"
        ) from error
    reader = Image()

    def read(value: Any) -> Any:
        """A PIL image, or why there is none."""
        try:
            if value is None:
                return "no image in this row"
            return reader.decode_example(value)
        except Exception as error:  # decoders raise whatever they like
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    def rows() -> Iterator[tuple[int, Any]]:
        for start in range(part.start, part.stop, BLOCK):
            yield from enumerate(encoded[start : min(start + BLOCK, part.stop)][column], start)

    first = next(((i, image) for i, value in rows() if not isinstance(image := read(value), str)), None)
    if first is None:
        raise UserError(
            f"none of the {len(part):,} images of {part.split} can be read ({read(next(rows())[1])}), expected image files; "
            "type --data.init_args.image_column NAME, or another source"
        )
    if preprocessing.grayscale is None:
        preprocessing = replace(preprocessing, grayscale=is_gray(first[1]))
        mixed = preprocessing.grayscale
    else:
        mixed = False
    shape = preprocessing(first[1]).shape

    def pixels(row: tuple[int, Any]) -> np.ndarray | Unreadable:
        index, value = row
        image = read(value)
        if isinstance(image, str):
            name = (value or {}).get("path") or f"row {index} of the split"
            return Unreadable(index, name, image)
        if mixed and not is_gray(image):
            raise UserError(
                f"image {index} of {part.split} has colours and image {first[0]} has none, expected images of one kind; type "
                "--data.init_args.grayscale false, or true"
            )
        array = preprocessing(image)
        if array.shape != shape:
            raise UserError(
                f"image {index} of {part.split} is {array.shape[2]}x{array.shape[1]} and image {first[0]} is "
                f"{shape[2]}x{shape[1]}, expected one size; type e.g. --data.init_args.resize 32 --data.init_args.crop 32"
            )
        return array

    unreadable: list[Unreadable] = []
    black = np.zeros(shape, np.uint8)
    with open(file, "wb") as out, ThreadPoolExecutor(_threads()) as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(part), *shape)}
        np.lib.format.write_array_header_1_0(out, header)
        for block in _shown(range(part.start, part.stop, BLOCK), part):
            values = encoded[block : min(block + BLOCK, part.stop)][column]
            # Few large tasks: with small images the queue would cost more than decoding.
            tasks = [list(enumerate(values[i : i + 32], block + i)) for i in range(0, len(values), 32)]
            for task in pool.map(lambda rows: [pixels(row) for row in rows], tasks):
                unreadable += [entry for entry in task if isinstance(entry, Unreadable)]
                out.write(np.stack([black if isinstance(entry, Unreadable) else entry for entry in task]).tobytes())
    return unreadable


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _shown(blocks: range, part: Part) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    title = f"Decoding {len(part):,} images of {part.split}, once"
    yield from track(blocks, title, console=Console(stderr=True))
