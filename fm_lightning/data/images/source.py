"""Where images come from: the Hugging Face hub, local parquet files or a folder of images, all read by ``datasets``."""

from __future__ import annotations

import errno
import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.data.images.folder import (
    FOREIGN,
    IMAGES,
    PARQUET,
    find_files,
    image_folder,
    one_split,
    parquet_splits,
)
from fm_lightning.data.images.metadata import METADATA, read_metadata
from fm_lightning.data.images.shards import check_shards
from fm_lightning.errors import OldError, UserError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
UNPACK = "unpack it and type source: FOLDER"
LOCAL = "source: PATH (a folder of images or of parquet files, or one parquet file)"


@dataclass(frozen=True)
class Opened:
    """A split of a source, in the source's own order.

    Attributes:
        dataset: its rows.
        content: changes with what they hold; None for image files, which have to be read for that.
        listed: whether the order is that of file names, and no one's choice.
        tables: its parquet files.
    """

    dataset: Dataset
    content: str | None
    listed: bool = False
    tables: Sequence[Path] = ()


def open_source(source: str | Mapping[str, str], config: str | None = None) -> dict[str, Opened]:
    """The splits of a dataset.

    Args:
        source: a folder (of images, class by class or not, or of parquet files), a parquet file or pattern, such folders or
            files per split (``{train: a.parquet, test: b.parquet}``), or a name on the hub.
        config: which of the dataset's configurations, where it has several.

    Raises:
        UserError: nothing there, not reachable, not readable as a dataset, or not clearly divided into splits.
    """
    if not isinstance(source, str):
        return _apart({split: _open_split(split, written) for split, written in source.items()})
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path.absolute(), config)
    if path.is_file() or set(source) & set("*?") or path.suffix == ".parquet":
        return {"train": _open_split("train", source)}
    if source.startswith(("/", "./", "../", "~")):
        raise OldError(f"source={source!r} given, which does not exist", "something that does", f"type {LOCAL}")
    return {split: Opened(rows, rows._fingerprint) for split, rows in _load(source, config, hub=True).items()}


def _open_folder(folder: Path, config: str | None) -> dict[str, Opened]:
    images, metadata, parquet = _find(folder)
    if images and parquet:
        raise OldError(
            f"source={str(folder)!r} given, which holds {len(images):,} images and {len(parquet):,} parquet files",
            "one kind",
            "type a folder of one kind, or files per split, source: {train: ..., test: ...}",
        )
    if images:
        rows = read_metadata(folder, images, metadata)
        return {split: Opened(found, None, listed=True) for split, found in image_folder(folder, images, rows).items()}
    if parquet:
        return _apart(_read_parquet(parquet_splits(folder, parquet, config)))
    others = find_files(folder, [""])
    if not others:
        raise OldError(
            f"source={str(folder)!r} given, which is no readable dataset (no files)", "images", f"type {LOCAL}"
        )
    content = _hash_files([folder / file for file in others])
    packed = all(file.suffix.lower() in ARCHIVES for file in others)
    try:
        loaded = _load(str(folder), config, cache=content)
    except UserError as error:
        raise UserError(error.problem, UNPACK if packed else error.fix) from error
    zipped = all(file.suffix.lower() == ".zip" for file in others)  # the order in a tar is its maker's
    return {split: Opened(rows, f"{content}:{split}", listed=zipped) for split, rows in loaded.items()}


def _open_split(split: str, written: str) -> Opened:
    """One split from a folder, a parquet file or a pattern of such files."""
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
        raise OldError(
            f"source={written!r} given for {split}, which is no readable dataset (no such file)",
            "images",
            f"type {LOCAL}",
        )
    if files[0].name.lower().endswith(IMAGES):
        raise OldError(f"source={written!r} given for {split}", "a folder of images", f"type source: {files[0].parent}")
    if files[0].suffix.lower() in ARCHIVES:
        raise OldError(f"source={written!r} given for {split}", "a folder of images", UNPACK)
    return _read_parquet({split: files})[split]


def _apart(splits: dict[str, Opened]) -> dict[str, Opened]:
    """As given; raises UserError if two splits hold the same parquet file."""
    known: dict[Path, str] = {}
    for split, opened in splits.items():
        tables = [table.resolve() for table in opened.tables]
        for table in tables:
            if table in known:
                other = known[table]
                raise OldError(
                    f"{table} given in {other} and in {split}",
                    "splits that share no file",
                    f"leave one out; to divide a split type train_part: '{other}[:90%]', held_out_part: '{other}[90%:]'",
                )
        known |= dict.fromkeys(tables, split)
    return splits


def _find(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Images, metadata files that name them, parquet files; beside no images a metadata.parquet is a file like any other.

    Raises:
        UserError: photographs beside the images that nobody would be able to read.
    """
    files = find_files(folder, (*IMAGES, *FOREIGN, *METADATA, *PARQUET))
    images = [file for file in files if file.name.lower().endswith(IMAGES)]
    metadata = [file for file in files if file.name.lower() in METADATA] if images else []
    if images and (foreign := [file for file in files if file.name.lower().endswith(FOREIGN)]):
        raise OldError(
            f"{folder / foreign[0]} given ({len(foreign):,} such files beside {len(images):,} images), which cannot be read",
            f"images of type {', '.join(IMAGES[:3])} ...",
            "convert them, or take them away",
        )
    return images, metadata, [file for file in files if file.name.lower().endswith(PARQUET) and file not in metadata]


def _read_parquet(files: Mapping[str, Sequence[Path]]) -> dict[str, Opened]:
    # One by one: read together, all splits get the first one's class names. And `datasets` takes names for patterns.
    opened = {}
    for split, some in files.items():
        content = _hash_files(some)
        check_shards(some)
        names = [glob.escape(str(file.absolute())) for file in some]
        opened[split] = Opened(_load("parquet", None, names, cache=content)["train"], content, tables=some)
    return opened


def _hash_files(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise OldError(
                f"{file} given, which cannot be read ({error.strerror})", "a file that can", "mend it"
            ) from error
    return found.hexdigest()[:24]


def _load(
    name: str,
    config: str | None,
    files: list[str] | None = None,
    *,
    cache: str | None = None,
    hub: bool = False,
) -> dict[str, Dataset]:
    """What ``datasets`` reads. Its own cache goes by size and time: a directory per content keeps it from serving old rows."""
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
            return OldError(
                f"cannot write {link.filename or 'the cache of `datasets`'} ({link.strerror})",
                "a cache with room and permission to write",
                "set HF_HOME to another directory",
            )
    # `datasets` wraps what went wrong in a message that does not say it.
    told = chain[1] if type(error).__name__ == "DatasetGenerationError" and len(chain) > 1 else error
    reason = f"{type(told).__name__}: {' '.join(str(told).split())[:200] or 'no reason given'}"
    if isinstance(error, ValueError) and "onfig name" in str(error):
        return OldError(
            f"dataset {source!r} given, which has several configurations ({reason})", "one of them", "type config: NAME"
        )
    if hub:
        return OldError(
            f"source={source!r} given, which cannot be had from the Hugging Face hub ({reason})",
            "a name that exists and a network that reaches it",
            f"for local files type {LOCAL}",
        )
    if "corresponds to no data" in reason:
        return OldError(
            f"source={source!r} given, which holds no rows",
            "images",
            "take it away, or type files per split, source: {train: ..., test: ...}",
        )
    remedy = "write it with to_parquet(FILE) and type source: FILE" if "save_to_disk" in reason else f"type {LOCAL}"
    return OldError(f"source={source!r} given, which is no readable dataset ({reason})", "images", remedy)
