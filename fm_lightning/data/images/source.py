"""Sources of images: the Hugging Face hub, local parquet files or a folder of images."""

from __future__ import annotations

import errno
import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.data.images.folder import (
    FILES,
    FOREIGN,
    IMAGES,
    PARQUET,
    find_files,
    image_folder,
    one_split,
    parquet_splits,
)
from fm_lightning.data.images.metadata import METADATA, read_metadata
from fm_lightning.errors import UserError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
UNPACK = "Unpack it and set source: FOLDER"
LOCAL = "source: PATH (a folder of images or of parquet files, or one parquet file)"
_ALIKE = "Rewrite the files alike, or set " + FILES


@dataclass(frozen=True)
class Opened:
    """A split of a source, in the source's own order.

    Attributes:
        dataset: its rows.
        content: a hash of the rows; None for image files, which are hashed when they are decoded.
        listed: whether the order is merely the order of file names.
        tables: its parquet files.
        places: directories whose files the rows of a table may name; the first one is where relative names start.
    """

    dataset: Dataset
    content: str | None
    listed: bool = False
    tables: Sequence[Path] = ()
    places: Sequence[Path] = ()


def open_source(source: str | Mapping[str, str], config: str | None = None) -> dict[str, Opened]:
    """Opens the splits of a dataset.

    Args:
        source, config: see ``ImageData``.

    Raises:
        UserError: a source that does not exist, cannot be reached or read, or is not clearly divided into splits.
    """
    if not isinstance(source, str):
        return _apart({split: _open_split(split, written) for split, written in source.items()})
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path.absolute(), config)
    if path.is_file() or set(source) & set("*?") or path.suffix == ".parquet":
        return {"train": _open_split("train", source)}
    if source.startswith(("/", "./", "../", "~")):
        raise UserError(f"source={source!r} does not exist.", f"Set {LOCAL}")
    loaded = _load(source, config, hub=True)
    return {split: Opened(rows, rows._fingerprint, places=_downloads()) for split, rows in loaded.items()}


def _open_folder(folder: Path, config: str | None) -> dict[str, Opened]:
    images, metadata, parquet = _find(folder)
    if images and parquet:
        raise UserError(
            f"source={str(folder)!r} holds {len(images):,} images and {len(parquet):,} parquet files.",
            f"Set a folder of one kind, or {FILES}",
        )
    if images:
        rows = read_metadata(folder, images, metadata)
        return {split: Opened(found, None, listed=True) for split, found in image_folder(folder, images, rows).items()}
    if parquet:
        return _apart(_read_parquet(parquet_splits(folder, parquet, config), folder))
    others = find_files(folder, [""])
    if not others:
        raise UserError(f"source={str(folder)!r} is no readable dataset: it has no files.", f"Set {LOCAL}")
    content = _hash_files([folder / file for file in others])
    packed = all(file.suffix.lower() in ARCHIVES for file in others)
    try:
        loaded = _load(str(folder), config, cache=content)
    except UserError as error:
        raise UserError(error.problem, UNPACK if packed else error.fix) from error
    zipped = all(file.suffix.lower() == ".zip" for file in others)  # a tar has the order in which it was made
    places = (folder, *_downloads())
    return {split: Opened(rows, f"{content}:{split}", listed=zipped, places=places) for split, rows in loaded.items()}


def _open_split(split: str, written: str) -> Opened:
    """Opens one split from a folder, a parquet file or a pattern of such files."""
    path = Path(written).expanduser()
    if path.is_dir():
        folder = path.absolute()
        images, metadata, parquet = _find(folder)
        if images:
            return Opened(one_split(folder, images, read_metadata(folder, images, metadata)), None, listed=True)
        files = [folder / file for file in parquet]
    else:
        files = [path] if path.is_file() else [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
    if not files:
        raise UserError(f"source={written!r} for {split} is no readable dataset: no such file.", f"Set {LOCAL}")
    if files[0].name.lower().endswith(IMAGES):
        raise UserError(f"source={written!r} for {split} is no folder.", f"Set source: {files[0].parent}")
    if files[0].suffix.lower() in ARCHIVES:
        raise UserError(f"source={written!r} for {split} is an archive.", UNPACK)
    return _read_parquet({split: files}, path if path.is_dir() else files[0].parent)[split]


def _apart(splits: dict[str, Opened]) -> dict[str, Opened]:
    """Returns the splits; raises UserError if two of them hold the same parquet file."""
    known: dict[Path, str] = {}
    for split, opened in splits.items():
        tables = [table.resolve() for table in opened.tables]
        for table in tables:
            if table in known:
                other = known[table]
                raise UserError(
                    f"{table} is in {other} and in {split}.",
                    f"Remove one; to divide a split, set train_part: '{other}[:90%]', held_out_part: '{other}[90%:]'",
                )
        known |= dict.fromkeys(tables, split)
    return splits


def _find(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Returns images, metadata files that name them, and parquet files (without images also a metadata.parquet).

    Raises:
        UserError: some images have a format that cannot be read.
    """
    files = find_files(folder, (*IMAGES, *FOREIGN, *METADATA, *PARQUET))
    images = [file for file in files if file.name.lower().endswith(IMAGES)]
    metadata = [file for file in files if file.name.lower() in METADATA] if images else []
    if images and (foreign := [file for file in files if file.name.lower().endswith(FOREIGN)]):
        raise UserError(
            f"Cannot read {folder / foreign[0]} ({len(foreign):,} such files next to {len(images):,} images).",
            "Convert them to PNG, or remove them.",
        )
    return images, metadata, [file for file in files if file.name.lower().endswith(PARQUET) and file not in metadata]


def _read_parquet(files: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, Opened]:
    # One by one: read together, all splits get the class names of the first. And `datasets` reads names as patterns.
    opened = {}
    for split, some in files.items():
        content = _hash_files(some)
        _check_shards(some)
        names = [glob.escape(str(file.absolute())) for file in some]
        rows = _load("parquet", None, names, cache=content)["train"]
        opened[split] = Opened(rows, content, tables=some, places=(folder.absolute(),))
    return opened


def _check_shards(files: Sequence[Path]) -> None:
    """Raises UserError if a file has columns that the first one lacks, or numbers its classes differently.

    `datasets` silently reads all files of a split by the columns and classes of the first.
    """
    from datasets import ClassLabel, Features
    from pyarrow import parquet

    try:
        found = [Features.from_arrow_schema(parquet.read_schema(file)) for file in files]
    except Exception:  # reading the file reports what is wrong
        return
    for file, features in zip(files, found):
        if more := features.keys() - found[0].keys():
            raise UserError(f"{file} has the column {min(more)}, and {files[0].name} does not.", _ALIKE)
        for column, feature in features.items():
            first = found[0][column]
            if isinstance(feature, ClassLabel) and isinstance(first, ClassLabel) and feature.names != first.names:
                raise UserError(f"{file} numbers the classes in {column} differently from {files[0].name}.", _ALIKE)


def _downloads() -> tuple[Path, ...]:
    """Directories into which `datasets` downloads and unpacks files."""
    import datasets

    return tuple(Path(place).absolute() for place in (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME))


def _hash_files(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise UserError(f"Cannot read {file}: {error.strerror}.", "Fix its permissions, or remove it.") from error
    return found.hexdigest()[:24]


def _load(
    name: str, config: str | None, files: list[str] | None = None, *, cache: str | None = None, hub: bool = False
) -> dict[str, Dataset]:
    """Reads with ``datasets``. Its cache goes by size and time, so that each content needs a directory of its own."""
    import datasets
    from datasets.exceptions import DatasetsError

    place = cache and str(Path(datasets.config.HF_DATASETS_CACHE) / f"content-{cache}")
    try:
        loaded = datasets.load_dataset(name, config, data_files=files, cache_dir=place)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        shown = name if files is None else files[0]
        raise _explained(shown, error, hub) from error
    return {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def _explained(source: str, error: Exception, hub: bool) -> UserError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, OSError) and link.errno in _CANNOT_WRITE:
            return UserError(
                f"Cannot write {link.filename or 'the cache of `datasets`'}: {link.strerror}.",
                "Set HF_HOME to another directory.",
            )
    # `datasets` wraps the reason in a message without it.
    told = chain[1] if type(error).__name__ == "DatasetGenerationError" and len(chain) > 1 else error
    reason = f"{type(told).__name__}: {' '.join(str(told).split())[:200] or 'no reason given'}"
    if isinstance(error, ValueError) and "onfig name" in str(error):
        return UserError(f"Dataset {source!r} has several configurations ({reason}).", "Set config: NAME")
    if hub:
        return UserError(
            f"Cannot get source={source!r} from the Hugging Face hub ({reason}).",
            f"Check the name and the network; for local files set {LOCAL}",
        )
    if "corresponds to no data" in reason:
        return UserError(f"source={source!r} has no rows.", f"Remove it, or set {FILES}")
    fix = "Write it with to_parquet(FILE) and set source: FILE" if "save_to_disk" in reason else f"Set {LOCAL}"
    return UserError(f"source={source!r} is no readable dataset ({reason}).", fix)
