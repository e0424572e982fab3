"""A folder of files: directories say which split and which class a file belongs to; words in file names never do.

    FOLDER/*.png                    one split, "train", without classes
    FOLDER/CLASS/**/*.png           one split with classes
    FOLDER/SPLIT/[CLASS/**/]*.png   several splits

Links are followed. Hidden files and what macOS puts into archives are left alone, and so is whatever is no image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.data.images.columns import in_order
from fm_lightning.errors import UserError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

IMAGES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
)
PARQUET = (".parquet",)
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = {name: split for split, names in _NAMES.items() for name in names}
_SHARD = re.compile(rf"({'|'.join(SPLITS)})(?=[-_.]|$)")  # the hub's way: train-00000-of-00005.parquet


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """All such files below a folder, relative to it, in the order of their names.

    Raises:
        UserError: a directory that may not be read.
    """
    found: list[Path] = []

    def descend(place: Path, above: frozenset[Path]) -> None:
        real = place.resolve()
        if real in above:  # a link to where it lies
            return
        for entry in os.scandir(place):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                descend(Path(entry.path), above | {real})
            elif entry.name.lower().endswith(tuple(suffixes)):
                found.append(Path(entry.path).relative_to(folder))

    try:
        descend(folder, frozenset())
    except OSError as error:
        raise UserError(
            f"{error.filename} given, which cannot be read ({error.strerror})",
            "a directory that can",
            "mend its permissions",
        ) from error
    return sorted(found)


def image_folder(folder: Path, files: list[Path]) -> dict[str, Dataset]:
    """Splits of image files, with the columns ``image`` and, where there are classes, ``label``.

    Raises:
        UserError: directories named for splits beside others.
    """
    folder, files = _inner(folder, files)
    splits = by_directory(folder, files) or {"train": (folder, files)}
    classes = {split: _classes(files) for split, (_, files) in splits.items()}
    names = in_order({name for found in classes.values() for name in found or ()})
    return {
        split: _dataset([str(folder / file) for file in files], classes[split], names)
        for split, (folder, files) in splits.items()
    }


def one_split(folder: Path, files: list[Path]) -> Dataset:
    """All image files of a folder as one split, whatever its directories are called."""
    classes = _classes(files)
    return _dataset([str(folder / file) for file in files], classes, in_order(set(classes or ())))


def parquet_splits(folder: Path, files: list[Path], config: str | None) -> dict[str, list[Path]]:
    """Parquet files by split: by directory; else by the beginning of their names, as on the hub; else one split.

    Raises:
        UserError: some files are named for splits and others not, or several configurations.
    """
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    if config is not None:
        if config not in tops:
            raise UserError(
                f"config={config!r} given",
                f"a directory of {folder} with parquet files ({_few(sorted(tops)) or 'none'})",
                "leave config out, or type another",
            )
        files = [file.relative_to(config) for file in files if file.parts[0] == config]
        folder = folder / config
    folder, files = _inner(folder, files)
    if found := by_directory(folder, files):
        return {split: [place / file for file in inside] for split, (place, inside) in found.items()}
    places = sorted({str(file.parent) for file in files})
    if len(places) > 1:
        raise UserError(
            f"{folder} given, whose parquet files lie in {_few(places)}",
            "one place",
            f"type e.g. config: {places[-1]}, or files per split, source: {{train: ..., test: ...}}",
        )
    marks = {file: _SHARD.match(file.name.lower()) for file in files}
    if not any(marks.values()):
        return {"train": [folder / file for file in files]}
    splits: dict[str, list[Path]] = {}
    for file, mark in marks.items():
        if mark is None:
            raise UserError(
                f"{folder} given, where {file.name} is named for no split and others are",
                "all or none",
                "type files per split, source: {train: ..., test: ...}",
            )
        splits.setdefault(SPLITS[mark[1]], []).append(folder / file)
    return dict(sorted(splits.items(), key=_place))


def by_directory(folder: Path, files: list[Path]) -> dict[str, tuple[Path, list[Path]]] | None:
    """Split -> its directory and the files in it; None where no directory is named for a split.

    Raises:
        UserError: some are and others not, or two are named for the same.
    """
    tops = sorted({file.parts[0] if len(file.parts) > 1 else "" for file in files})
    named = [top for top in tops if top.lower() in SPLITS]
    splits = {SPLITS[top.lower()]: top for top in named}
    if not named:
        return None
    if len(named) < len(tops) or len(splits) < len(named):
        others = [top or "files" for top in tops if top not in named] or named
        raise UserError(
            f"{folder} given, which holds {_few(named)} beside {_few(others)}",
            "directories that are all splits or all classes",
            (
                f"type source: {{{next(iter(splits))}: {folder / named[0]}, ...}}, or source: {{train: {folder}}} for "
                "these"
            ),
        )
    return {
        split: (folder / top, [file.relative_to(top) for file in files if file.parts[0] == top])
        for split, top in sorted(splits.items(), key=_place)
    }


def _inner(folder: Path, files: list[Path]) -> tuple[Path, list[Path]]:
    """Without directories that hold everything, as archives often unpack: a class alone is none."""
    while files and all(len(f.parts) > 1 for f in files) and len({f.parts[0] for f in files}) == 1:
        top = files[0].parts[0]
        if top.lower() in SPLITS:
            break
        folder, files = folder / top, [file.relative_to(top) for file in files]
    return folder, files


def _classes(files: list[Path]) -> list[str] | None:
    """Each file's class: the first directory; None where a file lies in none."""
    return None if any(len(file.parts) < 2 for file in files) else [file.parts[0] for file in files]


def _dataset(paths: list[str], classes: list[str] | None, names: list[str]) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, Image

    columns = {"image": paths} | ({"label": classes} if classes else {})
    features = Features({"image": Image()} | ({"label": ClassLabel(names=names)} if classes else {}))
    return Dataset.from_dict(columns, features=features)


def _place(item: tuple[str, object]) -> int:
    """Training first, as anyone lists splits."""
    return list(_NAMES).index(item[0])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
