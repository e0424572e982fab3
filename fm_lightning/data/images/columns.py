"""Columns of a dataset with images and with classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fm_lightning.errors import UserError

if TYPE_CHECKING:  # `datasets` takes over a second to import
    from datasets import Dataset

_COUNTED = ("int", "uint", "bool", "string", "large_string")


@dataclass(frozen=True)
class Labels:
    """A column of classes: ``codes [n]`` int64 into ``names``, -1 for rows without a class; some names may not occur.

    ``ordered``: the dataset defines the order of the names.
    """

    codes: np.ndarray
    names: list[str]
    ordered: bool = False


def find_image_column(dataset: Dataset, given: str | None) -> str:
    """Returns the column with images: the given one, or the only one.

    Raises:
        UserError: no such column, none with images or several; lists the columns.
    """
    from datasets import Image

    found = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    first = found[0] if found else None
    if given is not None:
        if given in dataset.features:
            return given
        raise UserError(
            f"image_column={given!r} is not among the columns {_columns(dataset)}.",
            f"Set image_column: {first or 'NAME'}",
        )
    if first is None:
        raise UserError(
            f"The dataset has no image column, only {_columns(dataset)}.",
            "If one of them holds encoded images, set image_column: NAME",
        )
    if len(found) > 1:
        raise UserError(f"The columns {', '.join(found)} all hold images.", f"Set for example image_column: {first}")
    return first


def known_label_column(dataset: Dataset, given: str | None) -> str | None:
    """Returns the column that orders rows of unconditional data: the given one, or the first of type ClassLabel."""
    from datasets import ClassLabel

    if given is not None and given in countable_columns(dataset):
        return given
    return next((name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)), None)


def find_label_column(dataset: Dataset, given: str | None, split: str) -> str:
    """Returns the column with classes: the given one, or the only one of type ClassLabel.

    Raises:
        UserError: no such column, none with classes or several; lists the columns.
    """
    from datasets import ClassLabel

    classes = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)]
    known = classes[0] if classes else None
    if given is None and len(classes) > 1:
        raise UserError(f"{split} has classes in the columns {', '.join(classes)}.", f"Set label_column: {known}")
    if given is None and known is not None:
        return known
    if given is None:
        directories = "" if countable_columns(dataset) else ", and not each image is in the directory of a class"
        raise UserError(
            f"{split} has no class labels, only the columns {_columns(dataset)}{directories}.",
            "Set conditional: false" if directories else "Set label_column: NAME, or conditional: false",
        )
    fix = f"Set label_column: {known or 'NAME'}, or leave it out."
    if given not in dataset.features:
        raise UserError(f"label_column={given!r} is not among the columns {_columns(dataset)} of {split}.", fix)
    if given not in countable_columns(dataset):
        raise UserError(
            f"label_column={given!r} holds {_kind(dataset.features[given])}, not class labels, whole numbers, words or "
            f"booleans (columns: {_columns(dataset)}).",
            fix,
        )
    return given


def countable_columns(dataset: Dataset) -> list[str]:
    """Returns the columns whose values can be classes."""
    from datasets import ClassLabel, Value

    return [
        name
        for name, feature in dataset.features.items()
        if isinstance(feature, ClassLabel)
        or (isinstance(feature, Value) and feature.dtype.rstrip("0123456789") in _COUNTED)
    ]


def read_labels(dataset: Dataset, column: str) -> Labels:
    """Reads a column in the dataset's own order. A number without a name and an empty word are no class."""
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
    """Sorts classes as numbers if all of them are numbers, else as words."""
    names = list(names)
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=int) if numbers else sorted(names)


def refuse_twins(names: Iterable[str]) -> None:
    """Raises UserError for two spellings of one class, which differ only in blanks or Unicode form."""
    seen: dict[str, str] = {}
    for name in in_order(names):
        other = seen.setdefault(" ".join(unicodedata.normalize("NFC", name).split()), name)
        if other != name:
            raise UserError(
                f"The classes {other!a} and {name!a} differ only in blanks or Unicode form.",
                "Rename one in the source.",
            )


def _columns(dataset: Dataset) -> str:
    return ", ".join(f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())


def _kind(feature: object) -> str:
    name = type(feature).__name__
    return str(getattr(feature, "dtype", name)) if name == "Value" else name
