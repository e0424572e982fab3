"""The closed-form velocity of a finite training set (empirical flow matching): every sample is a training point.

v*(x, t) = sum_i w_i (x_i - x) / (1 - t),      w = softmax_i( -||x - t x_i||^2 / (2 (1 - t)^2) )
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.flow.velocity import Velocity


class EmpiricalVelocity(nn.Module):
    """Evaluates ``v*`` exactly, in blocks of training points, for the linear path with ``sigma_min = 0``.

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
