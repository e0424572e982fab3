"""Where images come from: the Hugging Face hub, local parquet files or a folder of images, all through ``datasets``."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fm_lightning.errors import UserError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
LOCAL = "--data.init_args.source PATH (a folder of images or of parquet files, or one parquet file)"


def open_source(source: str | Mapping[str, str], config: str | None = None) -> dict[str, Dataset]:
    """The splits of a dataset.

    Args:
        source: a folder (of images, class by class or not, or of parquet files), a parquet file or pattern, such files per
            split (``{train: a.parquet, test: b.parquet}``), or a name on the hub.
        config: which of the dataset's configurations, where it has several.

    Raises:
        UserError: nothing there, not reachable, or not readable as a dataset.
    """
    from datasets import Dataset, DatasetDict, load_dataset
    from datasets.exceptions import DatasetsError

    local = _local(source)
    try:
        if local is None:
            loaded = load_dataset(source, config)
        elif isinstance(local, str):
            loaded = load_dataset(local, config)
        else:
            loaded = load_dataset("parquet", data_files=local)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise _explained(source, error, hub=local is None) from error
    if isinstance(loaded, Dataset):
        loaded = DatasetDict({"train": loaded})
    return dict(loaded)


def _local(source: str | Mapping[str, str]) -> str | dict[str, str] | None:
    """A folder as it is, files per split, or None for a name on the hub."""
    if not isinstance(source, str):
        return {split: str(Path(files).expanduser()) for split, files in source.items()}
    path = Path(source).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_file() or set(source) & set("*?"):
        return {"train": str(path)}
    if source.startswith(("/", "./", "../", "~")) or path.suffix == ".parquet":
        raise UserError(
            f"source={source!r} given, which does not exist, expected a name on the Hugging Face hub, a folder or a "
            f"parquet file; type {LOCAL}"
        )
    return None


def _explained(source: str | Mapping[str, str], error: Exception, hub: bool) -> UserError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, OSError) and link.errno in _CANNOT_WRITE:
            return UserError(
                f"cannot write {link.filename or 'the cache of `datasets`'} ({link.strerror}), expected a cache with room and "
                "permission to write; set HF_HOME to another directory"
            )
    # `datasets` wraps what went wrong in a message that does not say it.
    told = chain[1] if type(error).__name__ == "DatasetGenerationError" and len(chain) > 1 else error
    reason = f"{type(told).__name__}: {' '.join(str(told).split())[:200] or 'no reason given'}"
    if isinstance(error, ValueError) and "onfig name" in str(error):
        return UserError(
            f"dataset {source!r} has several configurations, expected one of them ({reason}); type --data.init_args.config NAME"
        )
    if hub:
        return UserError(
            f"dataset {source!r} cannot be had from the Hugging Face hub ({reason}), expected a name that exists and a network "
            f"that reaches it; for local files type {LOCAL}"
        )
    return UserError(f"source={source!r} given, which is no readable dataset ({reason}), expected images; type {LOCAL}")


def find_image_column(dataset: Dataset, given: str | None) -> str:
    """The column with images: as given, or the first of them.

    Raises:
        UserError: no such column, or none with images; lists the columns.
    """
    from datasets import Image

    columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())
    if given is not None:
        if given in dataset.features:
            return given
        raise UserError(
            f"image_column={given!r} given, expected one of the dataset's columns {columns}; type "
            f"--data.init_args.image_column {_first(dataset, Image) or 'NAME'}"
        )
    found = _first(dataset, Image)
    if found is None:
        raise UserError(
            f"the dataset has no image column, only {columns}, expected one; where one of them holds encoded images type "
            "--data.init_args.image_column NAME"
        )
    return found


def find_label_column(dataset: Dataset, given: str | None) -> str:
    """The column with classes: as given (any integers from 0), or the first one of type ClassLabel.

    Raises:
        UserError: no such column, or none with classes; lists the columns.
    """
    from datasets import ClassLabel, Value

    columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())
    found = _first(dataset, ClassLabel)
    if given is None and found is not None:
        return found
    if given is None or given not in dataset.features:
        what = "the dataset has no class labels" if given is None else f"label_column={given!r} given"
        raise UserError(
            f"{what}, expected one of its columns {columns}; type --data.init_args.label_column {found or 'NAME'}, or "
            "--data.init_args.conditional false"
        )
    feature = dataset.features[given]
    if not isinstance(feature, ClassLabel) and not (isinstance(feature, Value) and "int" in feature.dtype):
        raise UserError(
            f"label_column={given!r} given, which holds {_kind(feature)}, expected class labels or integers from 0 (columns: "
            f"{columns}); type --data.init_args.label_column {found or 'NAME'}"
        )
    return given


def _first(dataset: Dataset, kind: type) -> str | None:
    return next((name for name, feature in dataset.features.items() if isinstance(feature, kind)), None)


def _kind(feature: object) -> str:
    return (
        str(getattr(feature, "dtype", type(feature).__name__))
        if type(feature).__name__ == "Value"
        else type(feature).__name__
    )
