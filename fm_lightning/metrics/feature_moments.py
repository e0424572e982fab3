"""Mean and covariance of features."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.phrases import counted

BLOCK = 2048  # rows in float64 at a time (32 MB of 2 048 features each): the features themselves may be gigabytes


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` and unbiased covariance ``[D, D]`` of features ``[n, D]``, float64.

    Raises:
        UserError: fewer than two samples, or one whose features are not finite (it is named).
    """
    n = len(features)
    if n < 2:
        raise UserError(f"{counted(n, 'sample')} cannot have a covariance.", "Use at least 2 samples.")
    check_finite(features)
    mean = features.new_zeros(features.shape[1:], dtype=torch.float64)
    for part in features.split(BLOCK):
        mean += part.double().sum(0)
    mean /= n
    outer = mean.new_zeros(len(mean), len(mean))
    for part in features.split(BLOCK):
        centred = part.double() - mean
        outer.addmm_(centred.T, centred)
    return mean, outer / (n - 1)


def check_finite(features: Tensor) -> None:
    """Raises UserError for the first of the rows ``[n, D]`` that is not finite."""
    for start in range(0, len(features), BLOCK):
        bad = ~features[start : start + BLOCK].isfinite().all(1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise UserError(f"The features of image {row} contain NaN or infinity.", "Leave that image out.")
