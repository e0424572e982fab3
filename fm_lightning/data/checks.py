"""The three splits, looked at before anything is trained on them: whatever is wrong is named with its split and row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.split import Split
from fm_lightning.errors import OldError

BLOCK = 4096  # rows
# Held-out and real samples are compared by their distributions: of one sample there is none.
NEEDED = {"train_split": 1, "held_out_split": 2, "real_split": 2}


def checked_splits(
    splits: Mapping[str, Any], *, shape: Sequence[int] | None, num_classes: int, encode: Callable[[Tensor], Tensor]
) -> dict[str, Split]:
    """The splits as tensors: samples float32 where they were float64, labels int64.

    Args:
        splits: ``train_split``, ``held_out_split`` and ``real_split``: Splits of tensors or NumPy arrays.
        shape: of one sample in the model's space.
        num_classes: 0 without labels.
        encode: samples as stored -> the model's space.

    Raises:
        UserError: a split that is missing or too short, samples that are not finite, of another type or shape, or labels
            that do not go with them or with the classes; says which split and row.
    """
    if shape is None or not all(isinstance(side, int) and side > 0 for side in shape):
        raise OldError(f"shape={shape} given", "that of one sample in the model's space", "set e.g. shape = (256,)")
    found = {name: _tensors(name, split) for name, split in splits.items()}
    for name, split in found.items():
        _check_samples(name, split.x, tuple(shape), encode)
        _check_labels(name, split, num_classes)
    if num_classes:
        _check_seen(found)
    return found


def _tensors(name: str, split: Any) -> Split:
    if not isinstance(split, Split):
        raise OldError(
            f"{name}={type(split).__name__} given",
            "a Split",
            "set train_split, held_out_split and real_split in load()",
        )
    x, y = _tensor(name, split.x), None if split.y is None else _tensor(f"{name}'s labels", split.y)
    if x.ndim < 2 or len(x) < NEEDED[name]:
        raise OldError(
            f"{name} of shape {list(x.shape)} given", f"[n, ...] with n at least {NEEDED[name]}", "give it more samples"
        )
    if y is not None and (y.is_floating_point() or y.is_complex() or y.shape != x.shape[:1]):
        raise OldError(
            f"labels {_words(y)} given for the {len(x):,} samples of {name}",
            "one whole number each",
            "mend them in load()",
        )
    return Split(x.float() if x.dtype == torch.float64 else x, None if y is None else y.long())


def _tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # mapped files are only read
            return torch.from_numpy(given if given.dtype.isnative else given.astype(given.dtype.newbyteorder("=")))
    if not isinstance(given, Tensor):
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise OldError(f"{name} of {kind} given", "a tensor or an array of numbers", "type e.g. torch.tensor(...)")
    return given


def _check_samples(name: str, x: Tensor, shape: tuple[int, ...], encode: Callable[[Tensor], Tensor]) -> None:
    if x.is_floating_point():  # whole numbers are finite
        for start in range(0, len(x), BLOCK):
            good = x[start : start + BLOCK].flatten(1).isfinite().all(1)
            if not good.all():
                row = start + int((~good).nonzero()[0])
                raise OldError(f"NaN or infinity given in row {row} of {name}", "finite samples", "leave the row out")
    some = encode(x[:2])
    if some.shape[1:] != shape or len(some) != len(x[:2]):
        raise OldError(
            f"samples of shape {list(some.shape[1:])} given in {name}", f"{list(shape)}", "mend load(), or `shape`"
        )
    if some.dtype != torch.float32:
        raise OldError(
            f"samples {_words(some)} given in {name}", "float32 in the model's space", "convert them in encode()"
        )
    if not some.isfinite().all():
        raise OldError(f"encode() given samples of {name}, which it makes NaN or infinite", "finite ones", "mend it")


def _check_labels(name: str, split: Split, num_classes: int) -> None:
    if (split.y is None) == bool(num_classes):
        what = "no labels" if split.y is None else "labels"
        raise OldError(
            f"{what} given in {name} with num_classes={num_classes}",
            "labels in all three splits or in none",
            "set num_classes and the labels together",
        )
    if split.y is None:
        return
    bad = ((split.y < 0) | (split.y >= num_classes)).nonzero().flatten()
    if len(bad):
        raise OldError(
            f"label {int(split.y[bad[0]])} given in row {int(bad[0])} of {name}",
            f"0 to {num_classes - 1}",
            "number the classes without gaps, or set num_classes",
        )


def _check_seen(splits: Mapping[str, Split]) -> None:
    """What training never saw can be neither sampled nor compared with."""
    seen = splits["train_split"].y
    assert seen is not None
    for name, split in splits.items():
        assert split.y is not None
        unseen = (~torch.isin(split.y, seen)).nonzero().flatten()
        if len(unseen):
            label = int(split.y[unseen[0]])
            raise OldError(
                f"training data without class {label} given, which row {int(unseen[0])} of {name} has",
                "every class among them",
                "train on more samples",
            )


def _words(x: Tensor) -> str:
    return f"of type {str(x.dtype).removeprefix('torch.')} and shape {list(x.shape)}"
