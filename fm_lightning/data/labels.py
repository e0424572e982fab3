"""Labels of samples: drawn by the classes' shares, independently for each seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.noise import LABEL, uniform


def class_shares(given: str | Sequence[float], num_classes: int, y: Tensor | None) -> Tensor | None:
    """Returns ``[K]`` float64, the share of samples of each class; None for data without classes.

    Args:
        given: "training" (the shares in the training data; uniform where these are unknown), "uniform" (over the classes
            that training saw), or one number of at least 0 per class; they need not add up to 1.
        num_classes: the number K of classes.
        y: ``[n]`` int64, the training labels; None if they are unknown.

    Raises:
        UserError: not K shares, negative ones, all 0, or a share of a class that training never saw.
    """
    if not num_classes:
        if not isinstance(given, str):
            raise UserError(f"label_shares={list(given)} needs classes, and these data have none.", "Leave it out.")
        return None
    seen = torch.ones(num_classes).double() if y is None else torch.bincount(y, minlength=num_classes).double()
    if given == "training":
        return seen / seen.sum()
    if given == "uniform":
        return (seen > 0).double() / (seen > 0).sum()
    shares = torch.tensor([] if isinstance(given, str) else list(given), dtype=torch.float64)
    if len(shares) != num_classes or not (shares.isfinite() & (shares >= 0)).all() or not shares.sum() > 0:
        raise UserError(
            f"label_shares={given} is not training, uniform or {num_classes} numbers of at least 0, one per class.",
            "Set for example label_shares: uniform",
        )
    if unseen := torch.nonzero((shares > 0) & (seen == 0)).flatten().tolist():
        raise UserError(
            f"label_shares={given} samples class {unseen[0]}, which no training sample has.", "Set its share to 0."
        )
    return shares / shares.sum()


def seed_labels(seeds: Tensor, shares: Tensor | None, base_seed: int) -> Tensor | None:
    """Returns ``[B]`` int64 labels, each drawn from ``shares [K]`` by its seed and the base seed alone; None without classes.

    The labels of a run are therefore the same in all of its rows, on any number of devices and at any batch size. Where
    there are so few seeds that some classes get none, the base seed decides which.
    """
    if shares is None:
        return None
    ends = np.cumsum(shares.numpy())
    drawn = np.searchsorted(ends, uniform(seeds, base_seed, LABEL).numpy() * ends[-1], side="right")
    # The product may round up to the last end, and classes of share 0 may stand there.
    return torch.from_numpy(drawn).clamp_max(int(shares.nonzero().max()))
