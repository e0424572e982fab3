"""Tensors: samples that are already in the model's space."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.checks import as_tensor, checked_splits
from fm_lightning.data.labels import class_shares
from fm_lightning.data.samples import Samples
from fm_lightning.data.split import Split, pixels
from fm_lightning.errors import UserError


class Tensors(Samples):
    """Samples in the model's space, as they are; NumPy arrays become tensors.

    Args:
        train: ``[n, ...]`` what the model was trained on.
        real: ``[m, ...]`` what samples are compared with.
        held_out: ``[k, ...]`` real samples that are neither; without them verdicts know less about the noise of a distance.
        labels: ``[l]`` int64 classes from 0; every seed draws its label from these. None for an unconditional model.
        base_seed: of the labels.
    """

    def __init__(
        self,
        train: Tensor | np.ndarray,
        real: Tensor | np.ndarray,
        held_out: Tensor | np.ndarray | None = None,
        labels: Tensor | np.ndarray | None = None,
        base_seed: int = 0,
    ) -> None:
        super().__init__(base_seed=base_seed)
        given = {"train": train, "held_out": real if held_out is None else held_out, "real": real}
        samples = {name: _samples(name, x) for name, x in given.items()}
        self.shape = tuple(samples["train"].shape[1:])
        for name, x in samples.items():
            if tuple(x.shape[1:]) != self.shape:
                problem = f"Samples of {name} have the shape {list(x.shape[1:])}, those of train {list(self.shape)}."
                raise UserError(problem, "Pass both in the velocity's own space.")
        self.has_held_out = held_out is not None
        self._given = [Split(x) for x in samples.values()]
        self._labels = None if labels is None else _labels(labels)
        self.num_classes = 0 if self._labels is None else int(self._labels.max()) + 1
        self.space = "the tensors' own"

    def load(self) -> None:
        self.train_split, self.held_out_split, self.real_split = self._given

    @cached_property
    def label_shares(self) -> Tensor | None:
        return class_shares("training", self.num_classes, self._labels)

    @cached_property
    def has_pixels(self) -> bool:
        """Whether the training samples are images in [-1, 1]."""
        x = self.train_split.x
        return len(self.shape) == 3 and self.shape[0] in (1, 3) and bool(x.abs().max() <= 1)

    def to_uint8(self, x: Tensor) -> Tensor:
        if not self.has_pixels:
            raise TypeError(f"tensors of shape {list(self.shape)} are not images in [-1, 1]")
        return pixels(x)

    def _check(self) -> None:
        splits = {"train_split": self.train_split, "held_out_split": self.held_out_split, "real_split": self.real_split}
        found = checked_splits(splits, shape=self.shape, num_classes=0, encode=self.encode)
        self.train_split, self.held_out_split, self.real_split = found.values()


def _samples(name: str, x: Tensor | np.ndarray) -> Tensor:
    """``[n, ...]`` floating-point samples."""
    x = as_tensor(name, x)
    if x.ndim < 2:
        raise UserError(
            f"{name} has the shape {list(x.shape)}.", "Pass samples [n, ...], for example [n, 2] for points."
        )
    if not x.is_floating_point():
        dtype = str(x.dtype).removeprefix("torch.")
        raise UserError(
            f"{name} holds {dtype} numbers.", "Pass floats in the velocity's own space, for example in [-1, 1]."
        )
    return x.detach()


def _labels(given: Tensor | np.ndarray) -> Tensor:
    """``[l]`` int64 classes."""
    y = as_tensor("labels", given)
    if y.ndim != 1 or not len(y) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        raise UserError(f"labels are of type {kind} and shape {list(y.shape)}.", "Pass whole numbers of shape [n].")
    if y.min() < 0:
        raise UserError(f"labels contain {int(y.min())}.", "Number the classes from 0.")
    return y.cpu().long()


def samples_of(
    train: Tensor | Samples,
    real: Tensor | None = None,
    held_out: Tensor | None = None,
    labels: Tensor | None = None,
    base_seed: int = 0,
) -> Samples:
    """The data of a comparison: one ``FlowData`` for all, or ``Tensors``; loaded and checked.

    Raises:
        UserError: a FlowData together with tensors, no real samples, or tensors that cannot be compared with.
    """
    if isinstance(train, Samples):
        if real is not None or held_out is not None or labels is not None:
            raise UserError(
                f"{type(train).__name__} already has real samples, held-out samples and labels.", "Pass it alone."
            )
        data = train
    elif real is None:
        raise UserError("There are no real samples to compare with.", "Pass real=, a tensor [m, ...].")
    else:
        data = Tensors(train, real, held_out, labels, base_seed)
    data.prepare()
    data.check_reference()
    return data
