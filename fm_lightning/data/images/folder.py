"""A folder of files: directories, and not words in file names, say which split and which class a file belongs to.

    FOLDER/*.png                    one split, "train", without classes
    FOLDER/CLASS/**/*.png           one split with classes
    FOLDER/SPLIT/[CLASS/**/]*.png   several splits

A metadata file replaces directories as classes, see ``metadata``. Links are followed, also out of the folder: whoever set
up the folder made them. (Rows of a table may not leave the source, see ``encoded``.) Hidden files, thumbnails and bins
of other systems, and files that are no images are left out.

`imagefolder` of `datasets` is not used here: it takes a class called "train" for a split and drops the others, takes
steam_train_01.png for training, drops directories next to splits, names classes by the innermost directory, and takes 25 s
for 20,000 files at every start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.data.images.columns import in_order
from fm_lightning.data.images.metadata import Row, label_names, metadata_columns
from fm_lightning.errors import UserError

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
FILES = "files per split, source: {train: ..., test: ...}"
_SHARD = re.compile(rf"({'|'.join(SPLITS)})(?=[-_.]|$)")  # the hub's way: train-00000-of-00005.parquet


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns all files below a folder with these suffixes, relative to it, sorted by name.

    Raises:
        UserError: a directory that cannot be read, or a broken link.
    """
    found: list[Path] = []

    def descend(place: Path, above: frozenset[Path]) -> None:
        real = place.resolve()
        if real in above:  # a link to a directory above
            return
        for entry in os.scandir(place):
            if entry.name.startswith(".") or entry.name in _JUNK:
                continue
            if entry.is_dir():
                descend(Path(entry.path), above | {real})
            elif entry.name.lower().endswith(tuple(suffixes)):
                found.append(Path(entry.path).relative_to(folder))
            elif entry.is_symlink():
                os.stat(entry.path)  # a broken link may have been a class

    try:
        descend(folder, frozenset())
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename}: {error.strerror}.", "Fix its permissions, or the link."
        ) from error
    return sorted(found)


def image_folder(folder: Path, files: list[Path], metadata: Mapping[str, Row]) -> dict[str, Dataset]:
    """Returns splits of image files, with the columns ``image`` and, if there are classes, ``label``.

    Raises:
        UserError: some directories are named for splits and others are not.
    """
    folder, files = _inner(folder, files)
    return _datasets(by_directory(folder, files) or {"train": (folder, files)}, metadata)


def one_split(folder: Path, files: list[Path], metadata: Mapping[str, Row]) -> Dataset:
    """Returns all image files of a folder as one split, also if its directories are named for splits."""
    return _datasets({"train": (folder, files)}, metadata)["train"]


def parquet_splits(folder: Path, files: list[Path], config: str | None) -> dict[str, list[Path]]:
    """Groups parquet files into splits: by directory; else by the beginning of their names, as on the hub; else one split.

    Raises:
        UserError: some files are named for splits and others are not, or there are several configurations.
    """
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    if config is not None:
        if config not in tops:
            raise UserError(
                f"config={config!r} is no directory of {folder} with parquet files.",
                f"Set one of {_few(sorted(tops))}, or leave it out." if tops else "Leave config out.",
            )
        files = [file.relative_to(config) for file in files if file.parts[0] == config]
        folder = folder / config
    folder, files = _inner(folder, files)
    if found := by_directory(folder, files):
        return {split: [place / file for file in inside] for split, (place, inside) in found.items()}
    places = sorted({str(file.parent) for file in files})
    if len(places) > 1:
        raise UserError(f"Parquet files of {folder} are in {_few(places)}.", f"Set config: {places[-1]}, or {FILES}")
    marks = {file: _SHARD.match(file.name.lower()) for file in files}
    if not any(marks.values()):
        return {"train": [folder / file for file in files]}
    splits: dict[str, list[Path]] = {}
    for file, mark in marks.items():
        if mark is None:
            raise UserError(f"In {folder}, {file.name} is not named for a split, and others are.", f"Set {FILES}")
        splits.setdefault(SPLITS[mark[1]], []).append(folder / file)
    return dict(sorted(splits.items(), key=_place))


def by_directory(folder: Path, files: list[Path]) -> dict[str, tuple[Path, list[Path]]] | None:
    """Returns the directory and the files of each split; None if no directory is named for a split.

    Raises:
        UserError: only some directories are named for splits, or two are named for the same split.
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
            raise UserError(f"{folder} holds {one} and {other}, both named for {split}.", f"Set source: {{{places}}}")
        others = [top or "files" for top in tops if top not in named]
        raise UserError(
            f"{folder} holds {_few(named)}, named for splits, and {_few(others)}.",
            f"Set source: {{{next(iter(splits))}: {folder / named[0]}, ...}} for splits, or source: {{train: {folder}}} "
            "for classes.",
        )
    return {
        split: (folder / top, [file.relative_to(top) for file in files if file.parts[0] == top])
        for split, top in sorted(splits.items(), key=_place)
    }


def _inner(folder: Path, files: list[Path]) -> tuple[Path, list[Path]]:
    """Strips directories that contain everything, as archives often do: a single class is no class."""
    while files and all(len(f.parts) > 1 for f in files) and len({f.parts[0] for f in files}) == 1:
        top = files[0].parts[0]
        if top.lower() in SPLITS:
            break
        folder, files = folder / top, [file.relative_to(top) for file in files]
    return folder, files


def _classes(files: list[Path]) -> list[str] | None:
    """Returns each file's class, its first directory; None if a file is in no directory."""
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
    """Sorts training first, then validation and test."""
    return list(_NAMES).index(item[0])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
