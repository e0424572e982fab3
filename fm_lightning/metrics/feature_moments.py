"""Mean and covariance of features."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.errors import UserError

BLOCK = 16384  # rows in float64 at a time: the features themselves may be gigabytes


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` and unbiased covariance ``[D, D]`` of features ``[n, D]``, float64.

    Raises:
        UserError: fewer than two samples, or one whose features are not finite (it is named).
    """
    n = len(features)
    if n < 2:
        raise UserError(f"Fréchet distance of {n} samples asked for, expected at least 2; draw more seeds")
    mean = features.new_zeros(features.shape[1:], dtype=torch.float64)
    for part in features.split(BLOCK):
        mean += part.double().sum(0)
    mean /= n
    if not mean.isfinite().all():
        row = int((~features.isfinite().all(1)).nonzero()[0])
        raise UserError(
            f"features of sample {row} hold NaN or infinity, expected finite numbers; leave that sample out"
        )
    outer = mean.new_zeros(len(mean), len(mean))
    for part in features.split(BLOCK):
        centred = part.double() - mean
        outer.addmm_(centred.T, centred)
    return mean, outer / (n - 1)
