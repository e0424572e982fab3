"""Mean and covariance of features, at once or as running sums."""

from __future__ import annotations

from torch import Tensor

from fm_lightning.errors import UserError

BLOCK = 16384  # rows in float64 at a time: the features themselves may be gigabytes


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` and unbiased covariance ``[D, D]`` of features ``[n, D]``, float64.

    Raises:
        UserError: fewer than two samples.
    """
    _check_count(len(features))
    if len(features) <= BLOCK:
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        return mean, centred.T @ centred / (len(features) - 1)
    running = RunningMoments(sum(part.double().sum(0) for part in features.split(BLOCK)) / len(features))
    for part in features.split(BLOCK):
        running.add(part)
    return running.moments()


class RunningMoments:
    """Sums from which mean and covariance follow; those of several processes simply add.

        n = sum 1,    s = sum (f - c),    Q = sum (f - c)(f - c)^T
        mean = c + s / n,    cov = (Q - s s^T / n) / (n - 1)

    Float64, and taken about a centre c near the mean, so that the last difference keeps its digits.

    Args:
        centre: ``[D]`` c; alike wherever sums are to be added.
    """

    def __init__(self, centre: Tensor) -> None:
        self.centre = centre.double()
        d = len(centre)
        self.count = 0
        self.total = self.centre.new_zeros(d)
        self.outer = self.centre.new_zeros(d, d)

    def add(self, features: Tensor) -> None:
        """Adds ``[n, D]`` features."""
        shifted = features.double() - self.centre
        self.count += len(features)
        self.total += shifted.sum(0)
        self.outer.addmm_(shifted.T, shifted)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[D]`` and unbiased covariance ``[D, D]``.

        Raises:
            UserError: fewer than two samples.
        """
        return from_sums(self.count, self.total, self.outer, self.centre)


def from_sums(count: int, total: Tensor, outer: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance from n, s, Q and c (see ``RunningMoments``)."""
    _check_count(count)
    shift = total / count
    return centre + shift, (outer - count * shift[:, None] * shift) / (count - 1)


def _check_count(n: int) -> None:
    if n < 2:
        raise UserError(f"Fréchet distance of {n} samples asked for, expected at least 2; draw more seeds")
