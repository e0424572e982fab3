"""Labels of samples: drawn by the classes' shares, for each seed by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.noise import LABEL, uniform


def class_shares(asked: str | Sequence[float], num_classes: int, y: Tensor | None) -> Tensor | None:
    """``[K]`` float64, the share of samples to be drawn of each class; None for data without classes.

    Args:
        asked: "training" (the training data's shares; uniform where these are unknown), "uniform" (over the classes that
            training saw), or one number at least 0 a class; they need not add up to 1.
        num_classes: K.
        y: ``[n]`` the training labels; None: unknown.

    Raises:
        UserError: shares of another number, negative or all 0, or of a class that training never saw.
    """
    if not num_classes:
        if not isinstance(asked, str):
            raise OldError(f"label_shares={list(asked)} given", "none for data without classes", "leave it out")
        return None
    seen = torch.ones(num_classes).double() if y is None else torch.bincount(y, minlength=num_classes).double()
    if asked == "training":
        return seen / seen.sum()
    if asked == "uniform":
        return (seen > 0).double() / (seen > 0).sum()
    shares = torch.tensor([] if isinstance(asked, str) else list(asked), dtype=torch.float64)
    if len(shares) != num_classes or not (shares.isfinite() & (shares >= 0)).all() or not shares.sum() > 0:
        raise OldError(
            f"label_shares={asked} given",
            f"training, uniform, or {num_classes} numbers of at least 0, one a class",
            "type e.g. label_shares: uniform",
        )
    if unseen := torch.nonzero((shares > 0) & (seen == 0)).flatten().tolist():
        raise OldError(
            f"label_shares={asked} given, which asks for class {unseen[0]}",
            "classes that the training data hold",
            "give it the share 0",
        )
    return shares / shares.sum()


def seed_labels(seeds: Tensor, shares: Tensor | None, base_seed: int) -> Tensor | None:
    """``[B]`` int64 labels, each drawn from ``shares [K]`` by its seed and the base seed alone; None without classes.

    A run's labels are thus the same in all of its rows, on any number of devices and at any batch size. Seeds so few that
    some class gets none leave out other classes in a run with another base seed.
    """
    if shares is None:
        return None
    ends = np.cumsum(shares.numpy())
    drawn = np.searchsorted(ends, uniform(seeds, base_seed, LABEL).numpy() * ends[-1], side="right")
    # The product may round up to the last end, and classes of share 0 may stand there.
    return torch.from_numpy(drawn).clamp_max(int(shares.nonzero().max()))
