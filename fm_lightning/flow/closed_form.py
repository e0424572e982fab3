"""Velocities in closed form, of the linear path with ``sigma_min = 0``, evaluated exactly and in float64.

The finite training set itself (empirical flow matching), whose every sample is a training point:

    v*(x, t) = sum_i w_i (x_i - x) / (1 - t),      w = softmax_i( -||x - t x_i||^2 / (2 (1 - t)^2) )

Gaussian data, the best that knows no more of a training set than its mean and covariance, with ``x1 ~ N(m, C)``:

    v(x, t) = E[x1 - x0 | x_t = x] = m + (t C - (1 - t) I) [(1 - t)^2 I + t^2 C]^-1 (x - t m)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.flow.velocity import Velocity


class EmpiricalVelocity(nn.Module):
    """Evaluates ``v*`` in blocks of training points.

    Args:
        data: ``[N, ...]`` the training set in the model's space.
        block: how many training points are evaluated at once.

    It declares what a velocity may (``flow/velocity.py``): ``v*`` does not exist at ``t = 1``, and a call is one evaluation.
    """

    singular_end = True
    data: Tensor
    half_squares: Tensor

    def __init__(self, data: Tensor, block: int = 4096) -> None:
        super().__init__()
        if len(data) == 0:
            raise UserError("EmpiricalVelocity needs at least one training point.", "Use a larger training subset.")
        # Not persistent: a checkpoint should not hold a training set. float64, because the exponent divides
        # differences of squares by (1 - t)^2, at t = 0.99 by 1e-4.
        flat = data.flatten(1).double()
        self.register_buffer("data", flat, persistent=False)
        self.register_buffer("half_squares", flat.square().sum(1) / 2, persistent=False)
        self.block = block

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Args: ``x [B, ...]``, ``t [B]`` in [0, 1), ``y`` ignored. Returns the velocity, like ``x``."""
        t = t.double()[:, None]
        state = x.flatten(1).double()
        mean = softmax_mean(self._blocks(state, t))
        return ((mean - state) / (1 - t)).to(x.dtype).reshape(x.shape)

    def evaluations(self, t: float) -> int:
        """One, at any time."""
        return 1

    def at(self, t: float) -> Velocity:
        """The field itself, at any time."""
        return self

    def _blocks(self, state: Tensor, t: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for points, half in zip(self.data.double().split(self.block), self.half_squares.double().split(self.block)):
            # ||x - t x_i||^2 without ||x||^2, which no weight depends on. Written as a kernel around x / t, it would not
            # exist at t = 0.
            yield (t * (state @ points.T) - t.square() * half).div_((1 - t).square()), points


class GaussianVelocity(nn.Module):
    """Evaluates the velocity of Gaussian data with the mean and covariance of a training set.

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


def softmax_mean(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """``sum_n softmax_n(logits) rows_n`` over all blocks, for every query, streamed over blocks of points.

    Args:
        blocks: at least one of logits ``[Q, n]`` (overwritten, unless they carry a gradient) and the rows ``[n, D]`` that they
            weigh, of one dtype.

    Returns:
        ``[Q, D]``; nothing waits for the device.
    """
    summed = weight = peak = torch.tensor(0.0)
    for i, (logits, rows) in enumerate(blocks):
        # The largest logit is subtracted, not the logarithm of the sum: next to logits of 1e12, as of a sharp kernel,
        # rounding loses the log 2 by which two equal points outweigh one, and the weights would not add up to 1.
        top = logits.detach().amax(1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).min)  # a block may be -inf
        before, peak = peak, torch.maximum(peak, top) if i else top
        new = (logits - peak).exp() if logits.requires_grad else logits.sub_(peak).exp_()
        if i:
            fade = (before - peak).exp_()
            weight, summed = weight * fade + new.sum(1, keepdim=True), summed * fade + new @ rows
        else:
            weight, summed = new.sum(1, keepdim=True), new @ rows
    return summed / weight
