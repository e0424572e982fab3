"""Fréchet distance extrapolated to infinitely many samples.

The plug-in distance of n samples in d dimensions is biased by a term of order ``d / n``. The term differs between schedules:
it can exceed their difference and have the opposite sign. With half the samples it is twice as large, so that

    2 FD(n) - [FD(first half) + FD(second half)] / 2

is free of it to first order (compare arXiv 1911.07023, which fits a line in 1/n). The second order, ``(d / n)^2``, matters where
samples are close to real data. For Gaussian features of equal covariances it leaves ``-d / (4 n)`` of what was removed, which is
added back: the mean root of a sample covariance's eigenvalues is ``1 - (d/n) / 8 - (d/n)^2 / 64`` (Marchenko and Pastur).
Verdicts use the result from ``n = 10 d``.
"""

from __future__ import annotations

from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.feature_moments import moments
from fm_lightning.metrics.frechet import GaussianReference


def extrapolated_distance(reference: GaussianReference, features: Tensor) -> float:
    """The extrapolated squared Fréchet distance of ``features [n, D]``, in ascending order of their seeds.

    The halves are the rows at even and at odd places, which are the same seeds for every schedule over the same seeds.

    Raises:
        UserError: fewer than four rows.
    """
    if len(features) < 4:
        raise UserError(
            f"An extrapolated Fréchet distance of {len(features)} samples is undefined.", "Use at least 4 samples."
        )
    n, d = features.shape
    plug_in = reference.distance(*moments(features))
    bias = sum(reference.distance(*moments(features[start::2])) for start in (0, 1)) / 2 - plug_in
    return plug_in - bias * (1 - d / (4 * n))
