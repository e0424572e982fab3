"""Checks of the three splits before training; messages name the split and the row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.split import Split
from fm_lightning.errors import UserError

BLOCK = 4096  # rows
# Held-out and real samples are compared by their distributions: of one sample there is none.
NEEDED = {"train_split": 1, "held_out_split": 2, "real_split": 2}


def checked_splits(
    splits: Mapping[str, Any], *, shape: Sequence[int] | None, num_classes: int, encode: Callable[[Tensor], Tensor]
) -> dict[str, Split]:
    """Returns the splits as tensors: float64 samples as float32, labels as int64.

    Args:
        splits: ``train_split``, ``held_out_split`` and ``real_split``, each a Split of tensors or NumPy arrays.
        shape: the shape of one sample in the model's space.
        num_classes: the number of classes; 0 without labels.
        encode: maps stored samples to the model's space.

    Raises:
        UserError: a split that is missing or too short, samples that are not finite or have another type or shape, or
            labels that do not fit the samples or the classes; names the split and the row.
    """
    if shape is None or not all(isinstance(side, int) and side > 0 for side in shape):
        raise UserError(f"shape={shape} is not the shape of a sample.", "Set for example shape = (256,)")
    found = {name: _tensors(name, split) for name, split in splits.items()}
    for name, split in found.items():
        _check_samples(name, split.x, tuple(shape), encode)
        _check_labels(name, split, num_classes)
    if num_classes:
        _check_seen(found)
    return found


def _tensors(name: str, split: Any) -> Split:
    if not isinstance(split, Split):
        what = "is missing" if split is None else f"is of type {type(split).__name__}"
        raise UserError(f"{name} {what}.", "Set train_split, held_out_split and real_split in load(), each to a Split.")
    x, y = as_tensor(name, split.x), None if split.y is None else as_tensor(f"{name}'s labels", split.y)
    if x.ndim < 2 or len(x) < NEEDED[name]:
        raise UserError(
            f"{name} has the shape {list(x.shape)}.", f"It needs at least {NEEDED[name]} samples, as [n, ...]."
        )
    if y is not None:
        _check_label_type(name, y, len(x))
    return Split(x.float() if x.dtype == torch.float64 else x, None if y is None else y.long())


def _check_label_type(name: str, y: Tensor, n: int) -> None:
    """Labels are ``[n]`` whole numbers; the fix depends on what they are instead."""
    if y.is_floating_point() or y.is_complex():
        fix = "Convert them with .long() in load()."
    elif y.ndim == 2 and y.shape[0] == n:
        fix = "Flatten them." if y.shape[1] == 1 else "Of one-hot rows take the argmax."
    else:
        fix = "Pass one whole number per sample."
    if y.is_floating_point() or y.is_complex() or y.shape != (n,):
        raise UserError(f"The labels of {name} are {_words(y)}, for {n:,} samples.", fix)


def as_tensor(name: str, given: Any) -> Tensor:
    """A tensor, or a NumPy array of numbers as one; anything else is refused."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # mapped files are only read
            return torch.from_numpy(given if given.dtype.isnative else given.astype(given.dtype.newbyteorder("=")))
    if not isinstance(given, Tensor):
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        words = isinstance(given, np.ndarray) and given.dtype.kind in "OUS"
        fix = "np.unique(labels, return_inverse=True)[1] numbers words." if words else "Pass a tensor or a NumPy array."
        raise UserError(f"{name} must be numbers, but is {kind}.", fix)
    return given


def _check_samples(name: str, x: Tensor, shape: tuple[int, ...], encode: Callable[[Tensor], Tensor]) -> None:
    if x.is_floating_point():  # whole numbers are finite
        for start in range(0, len(x), BLOCK):
            good = x[start : start + BLOCK].flatten(1).isfinite().all(1)
            if not good.all():
                row = start + int((~good).nonzero()[0])
                raise UserError(f"Row {row} of {name} has NaN or infinite values.", "Leave the row out.")
    some = encode(x[:2])
    if some.shape[1:] != shape or len(some) != len(x[:2]):
        raise UserError(
            f"Samples of {name} have the shape {list(some.shape[1:])}, and shape is {list(shape)}.",
            "Correct load(), or set `shape`.",
        )
    if some.dtype != torch.float32:
        raise UserError(
            f"Samples of {name} are {_words(some)} in the model's space.", "Convert them to float32 in encode()."
        )
    if not some.isfinite().all():
        raise UserError(f"encode() turns samples of {name} into NaN or infinite values.", "Correct encode().")


def _check_labels(name: str, split: Split, num_classes: int) -> None:
    if (split.y is None) == bool(num_classes):
        what = "no labels" if split.y is None else "labels"
        raise UserError(
            f"{name} has {what}, and num_classes={num_classes}.",
            "Set num_classes and the labels of all three splits, or neither.",
        )
    if split.y is None:
        return
    bad = ((split.y < 0) | (split.y >= num_classes)).nonzero().flatten()
    if len(bad):
        least, most = int(split.y.min()), int(split.y.max())
        from_one = (least, most) == (1, num_classes)
        raise UserError(
            f"Row {int(bad[0])} of {name} has the label {int(split.y[bad[0]])}; labels are 0 to {num_classes - 1}.",
            "Subtract 1 from all labels." if from_one else "Number the classes without gaps, or set num_classes.",
        )


def _check_seen(splits: Mapping[str, Split]) -> None:
    """A class that training never saw can be neither sampled nor compared with."""
    seen = splits["train_split"].y
    assert seen is not None
    for name, split in splits.items():
        assert split.y is not None
        unseen = (~torch.isin(split.y, seen)).nonzero().flatten()
        if len(unseen):
            label = int(split.y[unseen[0]])
            raise UserError(
                f"Row {int(unseen[0])} of {name} has class {label}, which no training sample has.",
                "Train on more samples, or leave the class out.",
            )


def _words(x: Tensor) -> str:
    return f"of type {str(x.dtype).removeprefix('torch.')} and shape {list(x.shape)}"
