"""A folder of files: directories say which split and which class a file belongs to; words in file names never do.

    FOLDER/*.png                    one split, "train", without classes
    FOLDER/CLASS/**/*.png           one split with classes
    FOLDER/SPLIT/[CLASS/**/]*.png   several splits

A metadata file takes the classes' place, see ``metadata``. Links are followed. Hidden files are left alone, and so are what
macOS puts into archives, other systems' thumbnails and bins, and whatever is no image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.data.images.columns import in_order
from fm_lightning.data.images.metadata import Row, label_names, metadata_columns
from fm_lightning.errors import OldError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

IMAGES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
)
FOREIGN = (".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr")  # images that Pillow does not read
PARQUET = (".parquet",)
_JUNK = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information")
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
        UserError: a directory that may not be read, or a link to nowhere.
    """
    found: list[Path] = []

    def descend(place: Path, above: frozenset[Path]) -> None:
        real = place.resolve()
        if real in above:  # a link to where it lies
            return
        for entry in os.scandir(place):
            if entry.name.startswith(".") or entry.name in _JUNK:
                continue
            if entry.is_dir():
                descend(Path(entry.path), above | {real})
            elif entry.name.lower().endswith(tuple(suffixes)):
                found.append(Path(entry.path).relative_to(folder))
            elif entry.is_symlink():
                os.stat(entry.path)  # a link to nowhere may have been a class

    try:
        descend(folder, frozenset())
    except OSError as error:
        raise OldError(
            f"{error.filename} given, which cannot be read ({error.strerror})",
            "one that can",
            "mend its permissions, or the link",
        ) from error
    return sorted(found)


def image_folder(folder: Path, files: list[Path], metadata: Mapping[str, Row]) -> dict[str, Dataset]:
    """Splits of image files, with the columns ``image`` and, where there are classes, ``label``.

    Raises:
        UserError: directories named for splits beside others.
    """
    folder, files = _inner(folder, files)
    return _datasets(by_directory(folder, files) or {"train": (folder, files)}, metadata)


def one_split(folder: Path, files: list[Path], metadata: Mapping[str, Row]) -> Dataset:
    """All image files of a folder as one split, whatever its directories are called."""
    return _datasets({"train": (folder, files)}, metadata)["train"]


def parquet_splits(folder: Path, files: list[Path], config: str | None) -> dict[str, list[Path]]:
    """Parquet files by split: by directory; else by the beginning of their names, as on the hub; else one split.

    Raises:
        UserError: some files are named for splits and others not, or several configurations.
    """
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    if config is not None:
        if config not in tops:
            raise OldError(
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
        raise OldError(
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
            raise OldError(
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
        clash = [top for top in named if splits[SPLITS[top.lower()]] != top]
        if clash:
            one, other = clash[0], splits[split := SPLITS[clash[0].lower()]]
            places = ", ".join(f"{name}: {folder / top}" for name, top in sorted(splits.items(), key=_place))
            raise OldError(
                f"{folder} given, which holds {one} and {other}, both of them {split}",
                "one directory a split",
                f"type e.g. source: {{{places}}}",
            )
        others = [top or "files" for top in tops if top not in named]
        raise OldError(
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


def _datasets(splits: Mapping[str, tuple[Path, list[Path]]], metadata: Mapping[str, Row]) -> dict[str, Dataset]:
    from datasets import ClassLabel, Dataset, Features, Image, Value

    classes = {split: _classes(files) for split, (_, files) in splits.items()}
    names = in_order(
        label_names(list(metadata.values()))
        if metadata
        else {name for found in classes.values() for name in found or ()}
    )
    found = {}
    for split, (folder, files) in splits.items():
        paths = [str(folder / file) for file in files]
        columns, features = {"image": paths}, {"image": Image()}
        if metadata:
            more, types = metadata_columns([metadata[os.path.normpath(path)] for path in paths], names)
            columns, features = columns | more, features | types
        name = "directory" if metadata else "label"
        if (inside := classes[split]) and name not in columns:
            columns[name] = inside
            features[name] = Value("string") if metadata else ClassLabel(names=names)
        found[split] = Dataset.from_dict(columns, features=Features(features))
    return found


def _place(item: tuple[str, object]) -> int:
    """Training first, as anyone lists splits."""
    return list(_NAMES).index(item[0])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
