"""Which columns of a dataset hold images and classes, and what the classes are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fm_lightning.errors import OldError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

_COUNTED = ("int", "uint", "bool", "string", "large_string")


@dataclass(frozen=True)
class Labels:
    """A column as classes: ``codes [n]`` int64 into ``names``, -1 for rows without one; some names may never occur.

    ``ordered``: the names' order is the dataset's choice.
    """

    codes: np.ndarray
    names: list[str]
    ordered: bool = False


def find_image_column(dataset: Dataset, given: str | None) -> str:
    """The column with images: as given, or the only one.

    Raises:
        UserError: no such column, none with images or several; lists the columns.
    """
    from datasets import Image

    found = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    first = found[0] if found else None
    if given is not None:
        if given in dataset.features:
            return given
        raise OldError(
            f"image_column={given!r} given",
            f"one of the dataset's columns {_columns(dataset)}",
            f"type image_column: {first or 'NAME'}",
        )
    if first is None:
        raise OldError(
            f"the dataset has no image column, only {_columns(dataset)}",
            "one",
            "where one of them holds encoded images type image_column: NAME",
        )
    if len(found) > 1:
        raise OldError(f"the columns {', '.join(found)} given, all of images", "one", f"type image_column: {first}")
    return first


def known_label_column(dataset: Dataset, given: str | None) -> str | None:
    """The column that rows are classed by where nobody asks for classes: as given, or the first of type ClassLabel."""
    from datasets import ClassLabel

    if given is not None and given in countable_columns(dataset):
        return given
    return next((name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)), None)


def find_label_column(dataset: Dataset, given: str | None, split: str) -> str:
    """The column with classes: as given (ClassLabel, whole numbers, words or booleans), or the only one of type ClassLabel.

    Raises:
        UserError: no such column, none with classes or several; lists the columns.
    """
    from datasets import ClassLabel

    classes = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)]
    known = classes[0] if classes else None
    if given is None and len(classes) > 1:
        raise OldError(
            f"{split} given, with classes in the columns {', '.join(classes)}", "one", f"type label_column: {known}"
        )
    if given is None and known is not None:
        return known
    if given is None:
        some = countable_columns(dataset)
        raise OldError(
            f"{split} has no class labels",
            f"one of its columns {_columns(dataset)}"
            + ("" if some else ", or a folder with each image in a class's directory"),
            "type label_column: NAME, or conditional: false" if some else "type conditional: false",
        )
    if given not in dataset.features:
        raise OldError(
            f"label_column={given!r} given, which {split} lacks",
            f"one of its columns {_columns(dataset)}",
            f"type label_column: {known or 'NAME'}, or leave it out",
        )
    if given not in countable_columns(dataset):
        raise OldError(
            f"label_column={given!r} given, which holds {_kind(dataset.features[given])}",
            f"class labels, whole numbers, words or booleans (columns: {_columns(dataset)})",
            f"type label_column: {known or 'NAME'}, or leave it out",
        )
    return given


def countable_columns(dataset: Dataset) -> list[str]:
    """Columns whose values can be classes."""
    from datasets import ClassLabel, Value

    return [
        name
        for name, feature in dataset.features.items()
        if isinstance(feature, ClassLabel)
        or (isinstance(feature, Value) and feature.dtype.rstrip("0123456789") in _COUNTED)
    ]


def read_labels(dataset: Dataset, column: str) -> Labels:
    """A column in the dataset's own order. A number without a name, and an empty word, is no class."""
    from datasets import ClassLabel

    values = dataset.data.column(column)
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel) and feature.names:
        numbers = values.fill_null(-1).to_numpy()
        known = (numbers >= 0) & (numbers < len(feature.names))
        return Labels(np.where(known, numbers, -1), list(feature.names), ordered=True)
    encoded = values.dictionary_encode().unify_dictionaries()
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    words = [str(value) for value in encoded.chunk(0).dictionary.to_pylist()] if codes else []
    numbers = np.concatenate([np.zeros(0, np.int64), *codes]).astype(np.int64)
    return Labels(np.where(np.isin(numbers, [i for i, word in enumerate(words) if not word]), -1, numbers), words)


def in_order(names: Iterable[str]) -> list[str]:
    """Classes in the order of their numbers, if all of them are numbers, else of their names."""
    names = list(names)
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=int) if numbers else sorted(names)


def refuse_twins(names: Iterable[str]) -> None:
    """Raises UserError for classes whose names look alike: one class, typed or encoded in two ways."""
    seen: dict[str, str] = {}
    for name in in_order(names):
        other = seen.setdefault(" ".join(unicodedata.normalize("NFC", name).split()), name)
        if other != name:
            raise OldError(
                f"the classes {other!a} and {name!a} given",
                "names that differ in more than blanks or Unicode form",
                "rename one of them in the source",
            )


def _columns(dataset: Dataset) -> str:
    return ", ".join(f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())


def _kind(feature: object) -> str:
    name = type(feature).__name__
    return str(getattr(feature, "dtype", name)) if name == "Value" else name
