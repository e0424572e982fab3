"""The velocity of Gaussian data: the best that knows no more of a training set than its mean and covariance.

With ``x1 ~ N(m, C)``, ``x0 ~ N(0, I)`` and ``x_t = (1 - t) x0 + t x1``:

    v(x, t) = E[x1 - x0 | x_t = x] = m + (t C - (1 - t) I) [(1 - t)^2 I + t^2 C]^-1 (x - t m)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError


class GaussianVelocity(nn.Module):
    """Evaluates ``v`` exactly, in float64, for the linear path with ``sigma_min = 0``.

    Args:
        data: ``[N, ...]`` the training set in the model's space; its covariance has the divisor N.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        if len(data) == 0:
            raise UserError("GaussianVelocity needs at least one training point.", "Use a larger training subset.")
        flat = data.flatten(1).double()
        mean = flat.mean(0)
        variances, axes = _principal(flat - mean)
        for name, value in (("mean", mean), ("axes", axes), ("variances", variances)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Args: ``x [B, ...]``, ``t [B]`` in [0, 1), ``y`` ignored. Returns the velocity, like ``x``."""
        t = t.double()[:, None]
        away = x.flatten(1).double() - t * self.mean
        rest = 1 - t
        # Across the axes the data do not vary: there the velocity is -away / (1 - t).
        across = -away / rest
        along = (t * self.variances - rest) / (rest.square() + t.square() * self.variances) + 1 / rest
        velocity = self.mean + across + (away @ self.axes * along) @ self.axes.T
        return velocity.to(x.dtype).reshape(x.shape)


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances ``[r]`` along the axes ``[D, r]`` in which centred data ``[N, D]`` vary."""
    n, width = centred.shape
    if n >= width:
        variances, axes = torch.linalg.eigh(centred.T @ centred / n)
        return variances.clamp_min(0), axes
    _, scales, axes = torch.linalg.svd(centred, full_matrices=False)
    return scales.square() / n, axes.T
