"""Samples: data to train on and to compare with, without Lightning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from fm_lightning.data.checks import checked_splits
from fm_lightning.data.copies import Copies, count_copies, share_memory
from fm_lightning.data.labels import class_shares, seed_labels
from fm_lightning.data.order import in_random_order, stratified_order
from fm_lightning.data.split import Encoded, Split, content_hash
from fm_lightning.errors import UserError

# Seeds never overlap between purposes: schedules are chosen on validation seeds and judged on test seeds.
VAL_SEED, TEST_SEED, CALIBRATION_SEED, PREDICT_SEED = 0, 10_000_000, 20_000_000, 30_000_000
CALIBRATION_SEEDS = 500  # doses are chosen on these
MOSTLY = 0.5  # share of real samples that training may have seen where these are said to be others
LEAST_UNSEEN = 100  # held-out samples that a verdict can be based on


class VerdictReference(NamedTuple):
    """Which real samples verdicts compare with.

    Attributes:
        held_out: the held-out samples; otherwise the real ones.
        rows: ``[m]`` int64, those of them that count; None for all.
        seen: the share of these that training saw, 0 to 1.
    """

    held_out: bool
    rows: Tensor | None
    seen: float


class Samples(ABC):
    """Training, held-out and real samples, and the space that the model sees them in.

    A subclass sets ``shape`` and ``num_classes`` and fills ``train_split`` (exactly what the model sees),
    ``held_out_split`` (validation loss; the floor of real images) and ``real_split`` (what samples are compared with)
    in ``load()``. Splits hold samples as stored; ``encode`` brings them into the model's space, ``decode`` back into the
    visible one (images: [-1, 1]), ``to_uint8`` to pixels, where there are any. Labels are 0 to ``num_classes - 1``.

    Args:
        label_shares, base_seed: see ``FlowData``.
    """

    shape: tuple[int, ...]
    num_classes: int = 0
    space: str = "[-1, 1]"
    flip: bool = False  # whether training sees mirror images, too
    skipped: int = 0  # samples left out because they could not be read
    has_training_data: bool = True  # otherwise only seeds: no training, no memorization
    class_names: Sequence[str] = ()  # in the order of the labels, where the source names them
    decoder: str = ""  # names what `decode` depends on, where that may change while the samples stay
    train_split: Split
    held_out_split: Split
    real_split: Split
    has_held_out: bool = True  # otherwise the held-out samples only stand in
    copies: Copies = Copies()  # equal samples, counted when the splits are loaded
    real_in_train: Tensor | None = None  # [m] bool, which real samples training saw, where it is known row by row
    real_is_training: bool = False  # the real samples are the training split or the pool that it is taken from

    def __init__(
        self, label_shares: Literal["training", "uniform"] | list[float] = "training", base_seed: int = 0
    ) -> None:
        self._given_shares, self.base_seed = label_shares, base_seed
        self._prepared = False

    def prepare(self) -> None:
        """Loads and checks the splits, once.

        Raises:
            UserError: splits that cannot be trained on or compared with; see ``checked_splits``.
        """
        if not self._prepared:
            self.load()
            splits = (getattr(self, name, None) for name in ("train_split", "real_split"))
            self.real_is_training = share_memory(*(getattr(split, "x", None) for split in splits))
            self._check()
            if self.has_training_data:
                self._count_copies()
            self._prepared = True

    @abstractmethod
    def load(self) -> None:
        """Fills the three splits."""

    def encode(self, x: Tensor) -> Tensor:
        """Maps stored samples to the model's space, float32. By default only floating-point numbers are converted."""
        return x.float() if x.is_floating_point() else x

    def decode(self, x: Tensor) -> Tensor:
        """Maps the model's space to the visible one."""
        return x

    def to_uint8(self, x: Tensor) -> Tensor:
        """Maps the model's space to pixels ``[B, C, H, W]`` uint8, rounded to nearest and clamped.

        Raises:
            TypeError: data without pixels.
        """
        raise TypeError(f"{type(self).__name__} has no pixels")

    @property
    def has_pixels(self) -> bool:
        """Whether samples can be shown as images: whether the class defines ``to_uint8``."""
        return type(self).to_uint8 is not Samples.to_uint8

    def visible(self, x: Tensor) -> np.ndarray:
        """Samples as a figure wants them: images ``[M, H, W, C]`` uint8, anything else as it is."""
        return self.to_uint8(x).permute(0, 2, 3, 1).cpu().numpy() if self.has_pixels else x.float().cpu().numpy()

    def reference(self, index: Tensor | None = None) -> Tensor:
        """Returns ``[n, *shape]``, the training subset in the model's space, which memorization is measured against.

        Args:
            index: ``[n]`` int64, the samples to return; None for all.
        """
        return self.encode(self.train_split.x if index is None else self.train_split.x[index])

    def memorization_reference(self) -> tuple[Any, Tensor | None]:
        """Returns the stored rows ``[n, ...]`` that samples may copy, and ``[n]`` int64, the sample that each row is a view of.

        Views of one sample count as one and have its number in ``reference``. None: each row is a sample of its own.
        """
        return self.train_split.x, None

    def real(self) -> Tensor:
        """Returns ``[n, *shape]``, real samples that generated ones are compared with."""
        return self.encode(self.real_split.x)

    def held_out(self) -> Tensor:
        """Returns ``[n, *shape]``, real samples that are neither trained on nor compared with."""
        return self.encode(self.held_out_split.x)

    def encoded(self, split: Split) -> Encoded:
        """Returns a split in the model's space, encoded only when it is read."""
        return Encoded(split.x, self.encode)

    def floor(self, split: Split) -> Encoded:
        """Returns a split in an order whose first samples represent all of it, also if it is sorted by class."""
        if split.y is None or in_random_order(split.y.numpy()):
            return self.encoded(split)
        return Encoded(split.x, self.encode, torch.from_numpy(stratified_order(split.y.numpy(), len(split))))

    @cached_property
    def label_shares(self) -> Tensor | None:
        """``[K]`` float64, the share of each class among samples; None without classes."""
        return class_shares(self._given_shares, self.num_classes, self.train_split.y)

    def labels_of(self, seeds: Tensor) -> Tensor | None:
        """Returns ``[B]`` int64, the labels of the seeds, or None for data without classes."""
        return seed_labels(seeds, self.label_shares, self.base_seed)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the training data: samples, labels, mirroring, and the map to the model's space."""
        return f"{self._hash(self.train_split)}{'-flip' if self.flip else ''}"

    @property
    def facts(self) -> dict[str, str]:
        """What a checkpoint keeps of the data that it was trained on."""
        return {"training": self.fingerprint, "space": self.space} if self.has_training_data else {"space": self.space}

    @cached_property
    def comparison_fingerprint(self) -> str:
        """Hash of the real and held-out samples, and of the map to the model's space."""
        return f"{self._hash(self.real_split)}-{self._hash(self.held_out_split)}"

    def _hash(self, split: Split) -> str:
        # Some encoded samples represent everything that `encode` depends on.
        return content_hash(split.x, split.y, self.encode(split.x[:32]))

    @property
    def real_seen_in_training(self) -> float:
        """Share of the real samples that training saw, by content: 0 to 1."""
        return self.copies.real_in_train / len(self.real_split) if self.has_training_data else 0.0

    @property
    def verdict_reference(self) -> VerdictReference:
        """The real samples that verdicts compare with: a distance to training samples rewards copies.

        The real samples without those that training saw. If training saw most of them, the held-out samples, if there are at
        least 100. If training saw nearly all real samples and there are no held-out ones, the real samples as they are.
        """
        seen, held_out = self.real_seen_in_training, self.held_out_split
        others = self.copies.held_out_in_train / len(held_out)
        if seen > MOSTLY and self.has_held_out and len(held_out) >= LEAST_UNSEEN and others <= MOSTLY:
            return VerdictReference(True, None, others)
        unseen = (1 - seen) * len(self.real_split)
        if seen and self.real_in_train is not None and (seen <= MOSTLY or unseen >= LEAST_UNSEEN):
            return VerdictReference(False, (~self.real_in_train).nonzero()[:, 0], 0.0)
        return VerdictReference(False, None, seen)

    def check_reference(self) -> None:
        """Called before a verdict compares samples with the real ones.

        Raises:
            UserError: most real samples are copies of training samples, although they are not the training split itself.
        """
        if self.real_seen_in_training > MOSTLY and not self.real_is_training:
            raise UserError(
                f"{self.copies.real_in_train:,} of {len(self.real_split):,} real samples are training samples, byte for byte.",
                "Compare with samples that training does not see.",
            )

    def _count_copies(self) -> None:
        train, held_out, real = self.train_split.x, self.held_out_split.x, self.real_split.x
        self.copies, seen = count_copies(train, held_out, real)
        self.real_in_train = torch.from_numpy(seen)
        if line := self.copies.line(len(train), len(held_out), None if self.real_is_training else len(real)):
            say(line)

    def _check(self) -> None:
        splits = {name: getattr(self, name, None) for name in ("train_split", "held_out_split", "real_split")}
        shape = getattr(self, "shape", None)
        found = checked_splits(splits, shape=shape, num_classes=self.num_classes, encode=self.encode)
        self.train_split, self.held_out_split, self.real_split = found.values()
        _ = self.label_shares  # raises now, not at the first sample


def say(line: str) -> None:
    """Prints a line, once among all processes."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank()):
        print(line, flush=True)
