"""Handwritten digits, 8x8, as they ship with scikit-learn: real data that needs no network.

1797 images (the test part of UCI's "Optical Recognition of Handwritten Digits", Alpaydin & Kaynak 1998),
each pixel a count of 0..16 ink dots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sklearn.datasets
import torch
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.order import fixed_order
from fm_lightning.data.split import Split, pixels, unit_pixels
from fm_lightning.errors import UserError

COUNT = 1797
TRAIN_POOL = 400


def load_digits() -> tuple[Tensor, Tensor]:
    """Returns all images and labels, in scikit-learn's order.

    A pixel ``v`` in 0..16 becomes ``round(v * 255 / 16)``, the one tie (``v = 8``) upwards: 0 stays 0, 8
    becomes 128, 16 becomes 255. The map is one to one, so nothing is lost.

    Returns:
        images ``[1797, 1, 8, 8]`` uint8 and labels ``[1797]`` int64 in 0..9.
    """
    bunch = sklearn.datasets.load_digits()
    dots = bunch.images.astype(np.int64)  # [1797, 8, 8], 0..16
    images = ((dots * 255 + 8) // 16).astype(np.uint8)  # in integers: no platform's rounding can matter
    return torch.from_numpy(images)[:, None], torch.from_numpy(bunch.target.astype(np.int64))


class DigitsSplit(NamedTuple):
    """Which part each image belongs to: int64 indices into `load_digits`, each part in the fixed permutation's order."""

    train_pool: Tensor  # [400]  a flow model trains on the first n of these
    reference: Tensor  # [998]  real images for Fréchet statistics
    held_out: Tensor  # [399]  validation loss, and the floor row of real images
    classifier_train: Tensor  # [1437]  the feature network learns from these ...
    classifier_held_out: Tensor  # [360]  ... and is judged on these; cuts across the three parts above


def split() -> DigitsSplit:
    """Returns the fixed split. With ``p`` an image's position in one fixed permutation:

    - ``p < 400``: the training pool. A training subset of n images is its first n, so subsets are nested.
    - ``p >= 400``: in turns of seven, ``r r h r r h r``: five are reference, two held out (998, 399).
    - every fifth ``p`` is held out from the feature classifier. Seven and five have no common factor, hence
      it learns from four fifths of the reference and of the held-out images alike: its features favour
      neither.

    Writers are not kept apart: scikit-learn does not name them.
    """
    order = torch.from_numpy(fixed_order(COUNT))
    p = torch.arange(COUNT)
    turn = (p - TRAIN_POOL) % 7
    pool, held, unseen = p < TRAIN_POOL, (turn == 2) | (turn == 5), p % 5 == 0
    return DigitsSplit(
        train_pool=order[pool],
        reference=order[~pool & ~held],
        held_out=order[~pool & held],
        classifier_train=order[~unseen],
        classifier_held_out=order[unseen],
    )


class Digits(FlowData):
    """Handwritten digits: few to train on, so that they are memorized, and many to compare with.

    Args:
        n: number of training images, at most 400 (the first n of the training pool).
        conditional: whether the digit is served as the label.
        kwargs: arguments of FlowData.

    Raises:
        UserError: n out of range.
    """

    shape = (1, 8, 8)

    def __init__(self, n: int = 100, conditional: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= n <= TRAIN_POOL:
            raise UserError(f"n={n} is not between 1 and {TRAIN_POOL} training digits.", "Set for example n=100")
        self.n, self.conditional = n, conditional
        self.num_classes = 10 if conditional else 0

    def load(self) -> None:
        images, labels = load_digits()
        parts = split()
        self.train_split, self.real_split, self.held_out_split = (
            Split(images[index], labels[index] if self.conditional else None)
            for index in (parts.train_pool[: self.n], parts.reference, parts.held_out)
        )

    def encode(self, x: Tensor) -> Tensor:
        return unit_pixels(x)

    def to_uint8(self, x: Tensor) -> Tensor:
        return pixels(x)
